"""What is tried on a machine with a GPU, tried on the CPU: the checks hold here, and see what they are there to see."""

import json
import signal
import subprocess
import sys
import time

import pytest
import torch
from click.testing import CliRunner

from visionloop.bin.benchmarks import selftest_models, selftest_numbers, selftest_runs
from visionloop.bin.benchmarks.selftest import report_lines, run_all, selftest
from visionloop.bin.benchmarks.selftest_checks import CHECKS, EACH_TASK, ONCE, ORDER, choose
from visionloop.bin.benchmarks.selftest_process import (
    FAILED,
    NOT_POSSIBLE,
    NOT_RUN,
    OK,
    CheckProcess,
    load_functions,
    run_check,
)
from visionloop.bin.benchmarks.selftest_trial import NotPossible, Trial
from visionloop.bin.benchmarks.selftest_waits import counted_waits
from visionloop.bin.benchmarks.watched_run import read_notes
from visionloop.tasks.classification.task import ClassificationTask

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("shared")


@pytest.fixture
def trial(shared, tmp_path):
    """trial(task_name=None) -> Trial on the CPU."""
    yield lambda task_name=None: Trial(task_name, "cpu", tmp_path, shared)
    torch.use_deterministic_algorithms(False)


# the list --------------------


def test_every_check_has_a_place_in_the_order_and_a_function():
    assert sorted(ORDER) == sorted([*ONCE, *EACH_TASK])
    assert {*ORDER, None} == set(load_functions())
    assert len({check.name for check in CHECKS}) == len(CHECKS) == len(ONCE) + 4 * len(EACH_TASK)


def test_checks_are_chosen_by_name_or_kind_in_their_own_order():
    assert choose([]) == CHECKS
    assert [check.name for check in choose(["tf32", "ranks:detection", "health"])] == [
        "health",
        "ranks:detection",
        "tf32",
    ]
    assert [check.task for check in choose(["compile"])] == [
        "classification",
        "detection",
        "segmentation",
        "super_resolution",
    ]


def test_an_unknown_check_is_refused_and_the_list_names_all():
    refused = CliRunner().invoke(selftest, ["--only", "ranks:speech"])
    assert refused.exit_code == 2 and "no check 'ranks:speech'" in refused.output
    listed = CliRunner().invoke(selftest, ["--list"])
    assert [line.split()[0] for line in listed.output.splitlines()] == [
        check.name for check in CHECKS
    ]


def test_the_list_needs_no_torch():
    code = "import sys; from visionloop.bin.benchmarks.selftest import selftest; selftest(['--list'], standalone_mode=False); "
    done = subprocess.run(
        [sys.executable, "-c", code + "sys.exit('torch' in sys.modules)"],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0


# one check --------------------


def raising(error):
    def check(trial):
        raise error

    return check


def test_whatever_a_check_raises_is_its_answer(tmp_path):
    given = {"task_name": None, "device": "cpu", "folder": tmp_path, "shared": tmp_path}
    fine = run_check(lambda trial: {"device_of_it": trial.device}, given)
    assert (fine["state"], fine["figures"]) == (OK, {"device_of_it": "cpu"})
    broken = run_check(raising(AssertionError("weights differ\nby a lot")), given)
    assert (broken["state"], broken["reason"]) == (
        FAILED,
        "weights differ",
    ) and "by a lot" in broken["traceback"]
    crashed = run_check(raising(RuntimeError("CUDA error: an illegal memory access\nmore")), given)
    assert (crashed["state"], crashed["reason"]) == (
        FAILED,
        "RuntimeError: CUDA error: an illegal memory access",
    )
    assert run_check(raising(NotPossible("no second GPU")), given)["state"] == NOT_POSSIBLE


def test_a_process_that_dies_fails_its_check(tmp_path):
    process = CheckProcess(tmp_path / "log")
    process._process.kill()
    result = process.run("health", {}, 60)
    assert (
        result["state"] == FAILED
        and result["reason"] == f"its process ended with -{signal.SIGKILL.value}"
    )


def test_a_check_that_does_not_end_fails_and_is_ended(tmp_path):
    process = CheckProcess(tmp_path / "log")
    result = process.run("health", {}, 0.01)
    assert result["state"] == FAILED and result["reason"] == "has not ended after 0 s"
    assert not process._process.is_alive()


def test_what_no_time_is_left_for_is_not_run(tmp_path):
    checks = choose(["tf32", "bad-step"])
    facts, results = run_all(checks, tmp_path, "cpu", deadline=time.monotonic())
    assert facts["device"] == "cpu" and [result["state"] for result in results] == [NOT_RUN] * 2
    lines = list(report_lines(checks, results, facts))
    assert "2 not run: out of time, in 0 s." in lines and "- device: cpu" in lines
    assert sum(line.startswith("| bad-step | not run: out of time |") for line in lines) == 1


def test_the_report_tells_why_a_check_failed_and_stays_a_table():
    failed = {
        "state": FAILED,
        "reason": "a | b",
        "seconds": 1.25,
        "figures": {"loss_difference": 1.23456e-7, "model": "tiny"},
    }
    (row,) = [
        line for line in report_lines(choose(["tf32"]), [failed], {}) if line.startswith("| tf32")
    ]
    assert row.startswith(
        "| tf32 | **failed**: a \\| b | 1.2 | loss_difference 1.23e-07, model tiny |"
    )


# what they see --------------------


def test_a_wait_for_the_device_is_found_where_it_is():
    value = torch.ones(3)
    with counted_waits(CPU) as found:
        value.sum().item()
        (value * 2).cpu()
        value + 1
    assert (
        sorted(place.rpartition(":")[0] for place in found)
        == ["tests/bin/test_selftest_benchmark.py"] * 2
    )
    assert sum(found.values()) == 2


def test_a_loss_that_is_read_in_every_step_is_named(trial, monkeypatch):
    loss = ClassificationTask.loss

    def reading(task, model, batch, count):
        losses = loss(task, model, batch, count)
        assert losses["loss"].item() > 0
        return losses

    monkeypatch.setattr(ClassificationTask, "loss", reading)
    with pytest.raises(
        AssertionError,
        match=r"in 6 steps the host waits at \{'tests/bin/test_selftest_benchmark.py:\d+': 12\}",
    ):
        selftest_numbers.host_sync(trial("classification"))


def test_an_optimizer_that_takes_a_bad_step_is_named(trial, monkeypatch):
    step = torch.optim.AdamW.step

    def heedless(optimizer, closure=None):
        optimizer.found_inf = torch.zeros(())
        return step(optimizer, closure)

    monkeypatch.setattr(torch.optim.AdamW, "step", heedless)
    with pytest.raises(
        AssertionError, match="classification adamw fp32: step 1 is bad and changed"
    ):
        selftest_numbers.bad_step(trial())


def test_a_sample_trained_on_twice_and_other_counts_are_seen(tmp_path):
    rows = [
        {"step": 0, "offset": 2, "ids": [7], "count": {"samples": 3}},
        {"step": 0, "offset": 0, "ids": [4, 5], "count": {"samples": 3}},
    ]
    file = tmp_path / "0.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    assert read_notes(tmp_path) == {0: ([4, 5, 7], {"samples": 3})}
    file.write_text("\n".join(map(json.dumps, [*rows, rows[0]])))
    with pytest.raises(AssertionError, match="step 1: a piece is missing, or was trained on twice"):
        read_notes(tmp_path)
    file.write_text("\n".join(map(json.dumps, [rows[1], rows[0] | {"count": {"samples": 4}}])))
    with pytest.raises(AssertionError, match="step 1: processes divide by"):
        read_notes(tmp_path)


def test_files_and_losses_that_differ_are_seen():
    assert selftest_runs.equal_files({"a": "1", "b": "2"}, {"a": "1", "b": "2"}) == 2
    with pytest.raises(AssertionError, match="1 of 2 files differ, first b"):
        selftest_runs.equal_files({"a": "1", "b": "2"}, {"a": "1", "b": "3"})
    with pytest.raises(AssertionError, match="first c"):
        selftest_runs.equal_files({"a": "1"}, {"a": "1", "c": "3"})
    logs = [
        [{"kind": "train", "loss": 2.0}, {"kind": "eval"}, {"kind": "train", "loss": loss}]
        for loss in (4.0, 4.4)
    ]
    assert selftest_runs.largest_apart(*logs) == pytest.approx(0.1)


# they hold here --------------------


def test_multiplications_on_the_cpu_are_in_fp32_with_the_switch_on_and_off(trial):
    figures = selftest_numbers.tf32(trial())
    assert figures["product_error_tf32"] == figures["product_error_fp32"] < 1e-5


def test_recomputing_keeps_less_and_gives_equal_gradients(trial):
    figures = selftest_numbers.recompute(trial("classification"))
    assert (
        figures["gradient_difference"] == 0
        and figures["saved_recomputed_mib"] < figures["saved_mib"]
    )


def test_the_matcher_copies_once_a_micro_batch(trial):
    figures = selftest_numbers.host_sync(trial("segmentation"))
    assert figures == {"waits_per_micro_batch": 1, "library_waits_per_micro_batch": 0}


@pytest.mark.slow
def test_checks_in_one_process_hold_on_the_cpu(trial):
    assert selftest_numbers.bad_step(trial()) == {"cases": 4}
    for name in ("precision", "host_sync", "recompute"):
        folder = trial().folder / name
        folder.mkdir()
        assert getattr(selftest_numbers, name)(Trial("detection", "cpu", folder, trial().shared))


@pytest.mark.slow
@pytest.mark.parametrize(
    "check", [selftest_numbers.pinned, selftest_runs.async_save, selftest_runs.health]
)
def test_checks_of_all_tasks_at_once_hold_on_the_cpu(trial, check):
    assert check(trial())


@pytest.mark.slow
@pytest.mark.parametrize(
    "check",
    [
        selftest_runs.same_bytes,
        selftest_models.ranks,
        selftest_runs.torchrun,
        selftest_models.named_model,
        selftest_runs.compiled,
    ],
)
def test_checks_of_runs_and_models_hold_on_the_cpu(trial, check):
    assert check(trial("classification"))


@pytest.mark.slow
def test_the_command_prints_a_page_and_appends_a_row_for_each_check(tmp_path):
    chosen = ["--only", "tf32", "--only", "recompute:segmentation", "--only", "mps"]
    result = CliRunner().invoke(
        selftest, ["--device", "cpu", *chosen, "--json", str(tmp_path / "rows.json")]
    )
    assert result.exit_code == 0, result.output
    assert (
        result.output.startswith("# visionloop selftest")
        and "2 ok, 1 not possible here" in result.output
    )
    rows = [json.loads(line) for line in (tmp_path / "rows.json").read_text().splitlines()]
    assert [row["check"] for row in rows] == ["recompute:segmentation", "tf32", "mps"]
    assert (
        rows[0]["benchmark"] == "selftest"
        and rows[0]["task"] == "segmentation"
        and rows[0]["gradient_difference"] == 0
    )
    assert (
        rows[2]["state"] == NOT_POSSIBLE
        and rows[2]["reason"] == "no Metal device"
        and rows[2]["traceback"] is None
    )
    assert rows[1]["state"] == OK
