"""The comparison with other trainers: plan, record, tables; real runs where they are installed."""

import json
from dataclasses import asdict, replace
from importlib import metadata

import pytest
from click.testing import CliRunner

from visionloop.bin.benchmarks.peers import command, runner
from visionloop.bin.benchmarks.peers.recipes import (
    COMPARISONS,
    DEFAULTS,
    EOMT,
    OWN_PRESET,
    SAME_RECIPE,
    SPEED,
    Case,
    command_line_of,
    plan_cases,
    visionloop_settings,
)
from visionloop.bin.benchmarks.peers.tables import group_runs, ratio_rows, run_rows
from visionloop.bin.benchmarks.tasks import load_task_class, sample_data
from visionloop.bin.commands.cli import run_commands
from visionloop.engine.errors import UserError
from visionloop.engine.train import resolve_settings

VERSIONS = {"accelerate": "1", "datasets": "3", "timm": "1"}
SHARED = {"steps": 12, "batch_size": 2, "image_size": 32, "precision": "fp32"}
CASE = Case("trainer", "classification", SAME_RECIPE, 0, **SHARED)
SIZES = {"classification": 32, "detection": 96, "super_resolution": 16} | dict.fromkeys(EOMT, 32)


@pytest.fixture
def executed(monkeypatch, tmp_path):
    """Cases that the command asks for; their figures are made up."""
    cases = []

    def run(case, data, folder):
        cases.append(case)
        rate = {"trainer": 100.0, "timm": 110.0, "visionloop": 200.0}[case.implementation]
        scores = (
            {"accuracy": 0.5 + case.seed / 10, "val_loss": 1.0, "differs": "nothing"}
            if case.comparison != SPEED
            else {}
        )
        return {"samples_per_second": rate, "peak_mib": 400.0} | scores

    monkeypatch.setattr(command, "run_case", run)
    for module in (command, runner):
        monkeypatch.setattr(module, "peer_versions", lambda: VERSIONS)
    (tmp_path / "data").mkdir()
    return cases


def invoke(tmp_path, *words):
    words = ["--data", str(tmp_path / "data"), "--json", str(tmp_path / "runs.json"), *words]
    return CliRunner().invoke(command.peers, words, catch_exceptions=False)


def test_implementations_are_interleaved_seed_by_seed():
    cases = plan_cases("classification", (SAME_RECIPE, OWN_PRESET), 2, steps=None, precision="fp32")
    order = [
        ("trainer", SAME_RECIPE),
        ("timm", SAME_RECIPE),
        ("visionloop", SAME_RECIPE),
        ("visionloop", OWN_PRESET),
    ]
    assert [(case.implementation, case.comparison) for case in cases] == order * 2
    assert [case.seed for case in cases] == [0] * 4 + [1] * 4 and {
        case.steps for case in cases
    } == {1000}


@pytest.mark.parametrize("task_name", DEFAULTS)
def test_a_speed_comparison_runs_visionloop_with_and_without_its_cache(task_name):
    cases = plan_cases(task_name, (SPEED,), 1, steps=None, precision="fp32")
    assert [case.cached for case in cases][-2:] == [False, True] and {
        case.steps for case in cases
    } == {60}
    assert [case.implementation for case in cases][-2:] == ["visionloop"] * 2 and cases[
        0
    ].implementation == "trainer"


@pytest.mark.parametrize("comparison", COMPARISONS)
@pytest.mark.parametrize("task_name", DEFAULTS)
def test_visionloop_is_asked_for_settings_that_the_task_has(task_name, comparison):
    case = Case("visionloop", task_name, comparison, 3, **SHARED, hflip=False)
    settings = resolve_settings(
        load_task_class(task_name), visionloop_settings(case, "data", "run")
    )
    assert (
        settings["seed"].value == 3
        and settings["steps"].value == 12
        and settings["cache"].value == "none"
    )
    assert settings["ema"].value == (comparison == OWN_PRESET and task_name not in EOMT)


def test_settings_become_flags():
    assert command_line_of({"ema": False, "compile": True, "lr_min": 0.0}) == [
        "--no-ema",
        "--compile",
        "--lr-min",
        "0.0",
    ]


def test_the_same_command_resumes_and_repeats_no_run(executed, tmp_path):
    assert invoke(tmp_path, "--precision", "fp32", "--repeats", "2").exit_code == 0
    assert len(executed) == 8
    output = invoke(tmp_path, "--precision", "fp32", "--repeats", "3").output
    assert len(executed) == 12 and executed[8].seed == 2
    assert "trainer fp32" in output and "same recipe except: nothing" in output
    path = tmp_path / "runs.json"
    path.write_text(path.read_text()[:-20])  # an incomplete last line
    invoke(tmp_path, "--precision", "fp32", "--repeats", "3")
    assert len(executed) == 13 and len(path.read_text().splitlines()) == 12
    invoke(tmp_path, "--precision", "bf16", "--repeats", "1")
    assert len(executed) == 17
    path.write_text("{broken\n" + path.read_text())
    with pytest.raises(UserError, match="a line is not JSON"):
        runner.read_rows(path)


def rows_of(implementation, comparison, rates, scores, **fields):
    case = Case(implementation, "classification", comparison, 0, **SHARED | fields)
    figures = {
        "peak_mib": 200.0 if implementation == "trainer" else 100.0,
        "val_loss": 1.0,
        "title": case.title,
    }
    return [
        asdict(replace(case, seed=seed))
        | {"samples_per_second": rate}
        | ({"accuracy": score} if comparison != SPEED else {})
        | figures
        for seed, (rate, score) in enumerate(zip(rates, scores, strict=True))
    ]


def test_ratios_are_of_pairs_of_one_seed():
    rows = rows_of("trainer", SAME_RECIPE, [10.0, 20.0, 40.0], [0.5, 0.6, 0.4])
    rows += rows_of("visionloop", SAME_RECIPE, [20.0, 40.0, 80.0], [0.6, 0.7, 0.8])
    (row,) = ratio_rows("classification", group_runs(rows))
    assert (row["times_as_fast"], row["95_percent"], row["times_the_memory"], row["pairs"]) == (
        2.0,
        "2.00 to 2.00",
        0.5,
        3,
    )
    assert row["accuracy_difference"] == 0.2 and row["ranges_of_seeds_overlap"] == "yes"
    (two,) = ratio_rows("classification", group_runs([row for row in rows if row["seed"] < 2]))
    assert two["pairs"] == 2 and two["95_percent"] is None
    trainer, ours = run_rows("classification", group_runs(rows))
    assert (trainer["samples_per_second"], trainer["median_samples_per_second"]) == (
        "10.0, 20.0, 40.0",
        20.0,
    )
    assert ours["median_accuracy"] == 0.7


def test_each_variant_of_visionloop_is_compared_with_each_other_implementation():
    rows = rows_of("trainer", SPEED, [10.0], [0]) + rows_of("timm", SPEED, [20.0], [0])
    rows += rows_of("visionloop", SPEED, [20.0], [0]) + rows_of(
        "visionloop", SPEED, [40.0], [0], cached=True
    )
    table = ratio_rows("classification", group_runs(rows))
    assert [row["times_as_fast"] for row in table] == [2.0, 1.0, 4.0, 2.0]
    assert (
        table[2]["implementation"] == "visionloop fp32 --cache ram"
        and "accuracy_difference" not in table[0]
    )


def test_an_evaluation_between_two_lines_is_not_counted_as_steps():
    ends = {5: 0.0, 10: 5.0, 15: 10.0, 20: 99.0}
    lines = [
        {"kind": "train", "step": step, "time": end, "step_ms": 1000.0}
        for step, end in ends.items()
    ]
    assert runner.seconds_of_steps(lines, 20) == 94
    assert (
        runner.seconds_of_steps(
            [*lines, {"kind": "eval", "step": 18}, {"kind": "eval", "step": 20}], 20
        )
        == 10
    )


def test_a_missing_package_is_an_error_of_one_line(monkeypatch, tmp_path, capsys):
    def version(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(runner.metadata, "version", version)
    with pytest.raises(SystemExit) as left:
        run_commands(command.peers, ["--json", str(tmp_path / "runs.json")])
    assert left.value.code == 2
    assert (
        capsys.readouterr().err
        == "error: peers: accelerate is not installed; pip install -e '.[compare]'\n"
    )


@pytest.mark.parametrize(
    "words", [["--task", "all"], ["--sample-side", "500"], ["--data", "nowhere"]]
)
def test_options_that_do_not_go_together_are_refused(executed, tmp_path, words):
    result = invoke(tmp_path, *words)
    assert result.exit_code == 2 and "--data" in result.output and executed == []


def test_the_last_line_of_a_failed_process_reaches_the_user(tmp_path):
    with pytest.raises(UserError, match=r"trainer fp32: .*[Nn]o such option"):
        runner.run_module(["visionloop.bin.classification", "train", "--no-such"], CASE, tmp_path)
    with pytest.raises(RuntimeError, match=r"No module named visionloop\.bin\.nothing"):
        runner.run_module(["visionloop.bin.nothing"], CASE, tmp_path)


def test_other_implementations_train_with_transformers_own_attention():
    pytest.importorskip("accelerate")
    from visionloop.bin.benchmarks.peers.trainer_tasks import new_classifier

    model, _ = new_classifier(["cat", "dog"], 64)
    assert {
        module.config._attn_implementation
        for module in model.modules()
        if hasattr(module, "config")
    } == {"sdpa"}


@pytest.mark.slow
@pytest.mark.parametrize("task_name", DEFAULTS)
def test_every_implementation_trains_and_is_scored_by_one_command(task_name, tmp_path):
    pytest.importorskip("accelerate")
    sample_data(task_name, tmp_path, {"train": 12, "val": 6})
    small = [
        "--steps",
        "12",
        "--batch-size",
        "2",
        "--image-size",
        str(SIZES[task_name]),
        "--repeats",
        "1",
    ]
    result = invoke(tmp_path, "--task", task_name, *small)
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in (tmp_path / "runs.json").read_text().splitlines()]
    assert [(row["implementation"], row["comparison"]) for row in rows][-2:] == [
        ("visionloop", SAME_RECIPE),
        ("visionloop", OWN_PRESET),
    ]
    for row in rows:
        assert (
            row["samples_per_second"] > 0
            and row["peak_mib"] > 100
            and row["versions"].keys() > VERSIONS.keys()
        )
        assert all(row[name] >= 0 for name in runner.SCORES[task_name])
