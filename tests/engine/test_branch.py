"""A branch begins with a checkpoint of another run and recorded changes."""

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from stopped_runs import SETTINGS, STEPS, StoppingToy, bytes_of, run
from toy_task import ToyImages, ToyModel, ToyTask

from visionloop.engine.branches.record import check_history, read_record
from visionloop.engine.checkpoints.stored_tensors import StoredTensors
from visionloop.engine.config.branch_point import DataOrigin
from visionloop.engine.data.sampler import EpochSampler
from visionloop.engine.errors import UserError
from visionloop.engine.system.fault_injection import arm
from visionloop.engine.testing.short_runs import on_ranks
from visionloop.engine.train import resolve_settings, train

SOURCE = SETTINGS | dict(workers=0, micro_batch=12, keep=9)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run with all of its checkpoints: steps 4, 5, 10 and 12."""
    StoppingToy.stop = None
    output = tmp_path_factory.mktemp("source") / "run"
    train(ToyTask, output=str(output), **SOURCE)
    return output


@pytest.fixture
def source(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "run"))


def branch(source, at="@5", **changes):
    StoppingToy.stop = None
    return train(ToyTask, branch=f"{source}{at}", **changes).output


def refused(source, at="@5", **changes):
    with pytest.raises(UserError) as caught:
        branch(source, at, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def lines_of(output, capsys):
    """The lines of a new branch about what it takes over: {part: text}."""
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    return dict(line.strip().partition(": ")[::2] for line in printed if ": " in line)


def tensors_of(output, step, kind="model"):
    return load_file(output / "checkpoints" / f"step_{step:08d}" / f"{kind}.safetensors")


def rows_of(output, kind="train"):
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row for row in rows if row["kind"] == kind}


# the same bytes --------------------
@pytest.mark.parametrize("processes", [1, 2])
def test_a_branch_without_changes_ends_with_the_bytes_of_the_straight_run(tmp_path, processes):
    straight, output = tmp_path / "straight", tmp_path / "straight-branch-5"

    def start(output, stop_after, settings):
        if processes == 1:
            return run(output, stop_after, settings)
        return on_ranks(processes, run, output, stop_after, settings, context="fork")[0]

    start(straight, None, SOURCE | {"micro_batch": 6})
    assert start(output, 7, {"branch": f"{straight}@5"}) == ["stopped", 7]
    kept = straight.rename(tmp_path / "kept")  # a branch goes on without its source
    assert start(output, None, {"branch": f"{straight}@5"}) == ["finished", STEPS]
    assert bytes_of(output) == bytes_of(kept)


def branch_until(source, point, number):
    """Begin a branch in this process, and die in the write that comes as this number."""
    reached = []

    def die(at, _folder):
        reached.append(at)
        if reached.count(point) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    arm(die)
    branch(source, save_async=False)


def test_a_branch_that_is_killed_in_its_first_writes_begins_again(source):
    output = source.with_name("run-branch-5")
    # best/, its checkpoint and that of the branch are written in this order
    for point, number in (("after open", 1), ("mid-write", 1), ("before rename", 3)):
        process = multiprocessing.get_context("fork").Process(
            target=branch_until, args=(source, point, number)
        )
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    assert branch(source) == output
    assert bytes_of(output) == bytes_of(source)


def test_a_branch_of_a_branch_without_changes_is_the_straight_run_too(source):
    second = branch(branch(source), "@10")
    assert second.name == "run-branch-5-branch-10"
    assert bytes_of(second) == bytes_of(source)


def test_the_source_is_not_changed(source):
    def digest():
        files = sorted(path for path in source.rglob("*") if path.is_file())
        return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    before = digest()
    branch(source, lr=1e-3)
    assert digest() == before


# changes --------------------
def test_changes_are_recorded_and_apply_from_the_checkpoint_on(source, capsys):
    output = branch(source, lr=1e-3)
    lines = lines_of(output, capsys)
    record = read_record(output)
    assert record["changes"] == {"lr": [1e-2, 1e-3]} and record["step"] == 5
    old, new = rows_of(source), rows_of(output)
    assert [new[step]["lr"] for step in range(1, 6)] == [old[step]["lr"] for step in range(1, 6)]
    assert new[6]["lr"] == pytest.approx(old[6]["lr"] / 10, rel=0.01)
    assert new[6]["loss"] == old[6]["loss"]  # the step after sees the weights of the checkpoint
    assert lines["--lr 0.001"] == "was 0.01"
    assert lines["learning rate"].startswith("7.08e-04 at step 6, cosine over 12 steps; the source")


def test_what_fits_is_taken_over_and_the_rest_begins_anew(source, capsys):
    output = branch(source, optimizer="sgd", ema=False, output=str(source / "../a"))
    lines = lines_of(output, capsys)
    assert lines["moments"].startswith("begin at zero") and lines["EMA"] == "none from here on"
    assert tensors_of(output, 5).keys() == tensors_of(source, 5).keys()
    assert not (output / "checkpoints/step_00000005/ema.safetensors").exists()
    again = branch(output, "@5", ema=True, optimizer="adamw", output=str(source / "../b"))
    assert lines_of(again, capsys)["EMA"].startswith("begins with the weights")
    weights, ema = tensors_of(again, 5), tensors_of(again, 5, "ema")
    assert all(torch.equal(weights[name], ema[name]) for name in weights)


def test_frozen_parameters_leave_the_moments_of_the_others(source, capsys):
    output = branch(source, freeze="backbone")
    assert lines_of(output, capsys)["moments"] == "all taken over"
    old, new = (tensors_of(run, 5, "optimizer") for run in (source, output))
    assert new.keys() < old.keys() and all(torch.equal(old[name], new[name]) for name in new)
    thawed = branch(output, "@5", freeze=None, output=str(source / "../thawed"))
    assert tensors_of(thawed, 5, "optimizer").keys() == new.keys()  # a setting stays until changed


def test_another_batch_size_goes_on_with_the_next_sample():
    before, after = EpochSampler(40, 12, 3), EpochSampler(40, 6, 3, DataOrigin(5, 60))
    straight = [index for step in range(5, 9) for index in before.sample_ids(step)]
    halves = [index for step in range(5, 13) for index in after.sample_ids(step)]
    assert halves == straight and after.epoch_of(5) == before.epoch_of(5)


def test_other_data_begins_with_a_new_epoch_and_a_new_best_score(source, capsys):
    output = branch(source, images=30)
    lines = lines_of(output, capsys)
    assert lines["samples"] == "begin with epoch 2, because of --data"
    assert lines["best score"].startswith("begins anew")
    state = json.loads((output / "checkpoints/step_00000005/state.json").read_text())
    assert state["data_origin"] == [5, 60] and state["best"] is None


@pytest.mark.parametrize("epochs", [3.0, 4.5])
def test_epochs_count_the_samples_before_the_branch(tmp_path, epochs):
    settings = {name: value for name, value in SOURCE.items() if name != "steps"}
    source = train(ToyTask, output=str(tmp_path / "run"), epochs=3.0, **settings)
    assert source.step == 10
    halved = branch(source.output, "@5", batch_size=6, epochs=epochs)
    # 60 samples in 5 steps, and the rest of epochs x 40 in steps of 6
    assert json.loads((halved / "status.json").read_text())["step"] == 5 + -(
        -(epochs * 40 - 60) // 6
    )


# length --------------------
def test_extend_lengthens_a_finished_run_by_steps(source, capsys):
    StoppingToy.stop = None
    longer = train(ToyTask, extend=4, output=str(source))
    assert (longer.output.name, longer.step) == ("run-extend-4", STEPS + 4)
    lines = lines_of(longer.output, capsys)
    assert lines["learning rate"].endswith("the source had 2.04e-04 at step 12")
    assert read_record(longer.output)["changes"] == {"steps": [12, 16]}
    again = train(ToyTask, extend=4, output=str(source))  # finished: nothing to do
    assert again.step == STEPS + 4


def test_extend_lengthens_a_run_that_ended_early_from_its_end(tmp_path):
    early = train(ToyTask, output=str(tmp_path / "run"), **SOURCE | {"patience": 1, "lr": 0.0})
    assert early.step < STEPS
    longer = train(ToyTask, branch=str(early.output), extend=2)
    assert longer.step == early.step + 2


# refusals --------------------
def test_a_missing_step_lists_those_that_are_there(source):
    assert refused(source, "@7").endswith(
        "no checkpoint of step 7; there are 4 (best), 5, 10, 12; --keep-every N keeps more of them"
    )


def test_a_damaged_checkpoint_is_one_line(source):
    (source / "checkpoints/step_00000005/optimizer.safetensors").write_bytes(b"x")
    assert "step_00000005 is damaged (optimizer.safetensors" in refused(source)


@pytest.mark.parametrize(
    ("at", "changes", "message"),
    [
        ("@x", {}, "expected RUN@STEP, RUN@best or RUN, got 'x' after the @"),
        ("", {}, "that is step 12, and the branch ends at step 12; give it more steps"),
        ("@5", {"steps": 5}, "that is step 5, and the branch ends at step 5"),
        ("@5", {"resume": "x"}, "--resume: not with --branch"),
        ("@5", {"budget": "1h"}, "--budget: not with --branch"),
        ("@5", {"extend": 3, "steps": 30}, "--extend: give it or the whole length, not both"),
        ("@5", {"extend": 0.5}, "--extend 0.5: expected a whole number of steps"),
    ],
)
def test_what_a_branch_cannot_be_is_one_line(source, at, changes, message):
    assert message in refused(source, at, **changes)


def test_another_model_is_refused_with_a_line_that_names_model(tmp_path):
    source = train(ToyTask, output=str(tmp_path / "run"), model="one", **SOURCE).output
    message = refused(source, model="other")
    assert message == (
        f"--model other: a branch of {source} keeps its one; to train its weights in another way: "
        f"--model {source / 'best'}"
    )


def test_weights_of_another_shape_are_refused_with_a_line_that_names_model(source, monkeypatch):
    monkeypatch.setattr(
        ToyTask, "build_model", lambda self: ToyModel(self.config.dropout, batch_norm=True)
    )
    message = refused(source)
    assert "these weights do not fit the model of the branch" in message
    assert message.endswith(f"--model {source / 'best'}")


def test_a_run_that_is_not_there_or_no_run_is_one_line(source):
    assert "no such folder; expected RUN@STEP" in refused(source.with_name("gone"))
    assert "not the folder of a run" in refused(source.parent, "")


def test_a_folder_of_another_branch_is_refused(source):
    output = branch(source)
    assert "is the folder of --branch" in refused(source, "@10", output=str(output))
    assert "is the folder of another run" in refused(output, "@10", output=str(source))
    assert "keeps its folder" in refused(source, output=str(source))


def test_other_classes_are_refused(source, monkeypatch):
    monkeypatch.setattr(ToyImages, "classes", ["dark", "light"], raising=False)
    first = train(ToyTask, output=str(source / "../classes"), **SOURCE).output
    monkeypatch.setattr(ToyImages, "classes", ["dark", "grey", "light"])
    message = refused(first, images=30)
    assert "3 classes, there were 2 (1 new: grey)" in message and "--model" in message


def test_the_refusal_of_a_changed_setting_names_branch(source):
    with pytest.raises(UserError, match=f"--branch {source}@12"):
        train(ToyTask, output=str(source), **SOURCE | {"lr": 1e-3})


# history and checkpoints --------------------
def test_the_history_is_that_of_the_source_and_its_hash_is_checked(source):
    output = branch(source, lr=1e-3)
    record = read_record(output)
    shared = (output / "metrics.jsonl").read_bytes()[: record["history"]["bytes"]]
    assert (source / "metrics.jsonl").read_bytes().startswith(shared[:100])
    assert check_history(output, record) is None
    (output / "metrics.jsonl").write_bytes(shared.replace(b'"loss"', b'"lost"', 1))
    assert "not those of the source" in check_history(output, record)


def test_keep_every_writes_and_keeps_the_multiples(tmp_path):
    settings = SOURCE | dict(keep=1, keep_every=3, save_every=0, ema=False)
    output = train(ToyTask, output=str(tmp_path / "run"), **settings).output
    steps = {int(path.name[-8:]) for path in (output / "checkpoints").iterdir()}
    assert {3, 6, 9, 12} <= steps and len(steps) <= 5  # and the best one


def test_a_dry_run_shows_the_settings_of_the_source(source):
    settings = resolve_settings(ToyTask, {"branch": f"{source}@5", "lr": 1e-3})
    values = {name: setting.value for name, setting in settings.items()}
    assert (values["lr"], values["batch_size"], values["output"]) == (1e-3, 12, None)


# sharded --------------------
def test_a_sharded_checkpoint_is_branched_from_on_any_number_of_processes(tmp_path):
    source, whole, again = tmp_path / "sharded", tmp_path / "whole", tmp_path / "again"
    settings = SOURCE | {"micro_batch": 6, "shard": "full", "eval_every": 0}
    on_ranks(2, run, source, None, settings, context="fork")
    run(whole, None, {"branch": f"{source}@5", "shard": "none", "lr": 1e-3})
    back = {"branch": f"{whole}@5", "shard": "full", "optimizer": "adam"}
    assert on_ranks(2, run, again, None, back, context="fork")[0] == ["finished", STEPS]
    for kind in ("optimizer", "ema"):
        stored = []
        for output in (source, whole, again):
            with StoredTensors(output / "checkpoints/step_00000005", kind) as tensors:
                stored.append(dict(tensors))
        assert stored[0].keys() == stored[1].keys() == stored[2].keys()
        for name, tensor in stored[0].items():
            assert all(torch.equal(tensor, other[name]) for other in stored[1:])
