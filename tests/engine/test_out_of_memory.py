"""A step that runs out of memory is done again in smaller micro-batches, also after a kill."""

import errno
import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.utils.tensorboard
from jsonschema import Draft202012Validator
from safetensors.torch import load_file
from scarce_toy import SETTINGS, GrowingToy, ScarceToy, SummingToy, start, start_processes
from toy_task import ToyTask

from visionloop.engine import step as step_module
from visionloop.engine.checkpoints.folder import latest_valid, read_state
from visionloop.engine.data.loader import TrainingData
from visionloop.engine.data.micro_batches import Halving, MicroBatchPlan
from visionloop.engine.distributed import World
from visionloop.engine.errors import RunAgain, UserError
from visionloop.engine.out_of_memory import OutOfMemoryGuard, read_halvings, write_halvings
from visionloop.engine.testing.short_runs import logged, on_ranks
from visionloop.engine.train import train

STEPS = SETTINGS["steps"]
HALVED = (Halving(3, 12, 6),)
HALVED_AT_START = (Halving(0, 12, 6),)
QUIET = {"dropout": 0.0}
SCHEMA = json.loads((Path(__file__).parents[2] / "bin/platform_contract/schema.json").read_text())
METRICS_LINE = Draft202012Validator({"$ref": "#/$defs/metrics_line", "$defs": SCHEMA["$defs"]})


def files_of(output, pattern="checkpoints/*/*"):
    """{path: SHA-256} of the files of every checkpoint, or of another pattern."""
    files = {
        str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in Path(output).glob(pattern)
    }
    assert files
    return files


def rows(output, kind):
    return [row for row in logged(Path(output)) if row["kind"] == kind]


def forked(output, **arguments):
    """The result of `start` in a process of its own."""
    (result,) = start_processes(1, output, **arguments)
    return result


def assert_same_run(output, expected):
    assert logged(output) == logged(expected)
    assert files_of(output) == files_of(expected)
    assert files_of(output, "best/*") == files_of(expected, "best/*")


def test_the_step_is_done_again_from_the_same_samples(tmp_path, capsys):
    for place in ("forward", "backward"):
        assert forked(tmp_path / place, scarcity={"place": place}, **QUIET) == [0, "finished"]
    assert start(tmp_path / "plenty", task=ToyTask, **QUIET) == [0, "finished"]
    expected = [row["loss"] for row in rows(tmp_path / "plenty", "train")]
    for place in ("forward", "backward"):
        losses = [row["loss"] for row in rows(tmp_path / place, "train")]
        assert losses == pytest.approx(expected, rel=1e-5)
        assert losses[:3] == expected[:3]
        assert read_halvings(tmp_path / place) == HALVED


@pytest.mark.parametrize("place", ["forward", "backward"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_nothing_of_the_failed_attempt_remains(tmp_path, place, precision):
    settings = {"batch_norm": True, "precision": precision, "save_every": 3}
    scarcity = {"place": place}
    assert forked(tmp_path / "scarce", scarcity=scarcity, **settings) == [0, "finished"]
    # a run of whole micro-batches up to that step, resumed with halves of them
    assert forked(tmp_path / "chosen", task=ToyTask, **settings | {"steps": 8}) == [0, "finished"]
    for folder in (tmp_path / "chosen/checkpoints").iterdir():
        if folder.name != "step_00000003":
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()
    smaller = settings | {"micro_batch": 6}
    assert forked(tmp_path / "chosen", task=ToyTask, **smaller) == [0, "finished"]
    for file in ("model", "ema", "optimizer"):
        path = f"checkpoints/step_{STEPS:08d}/{file}.safetensors"
        tensors, expected = (
            load_file(tmp_path / "scarce" / path),
            load_file(tmp_path / "chosen" / path),
        )
        assert all(torch.equal(tensors[name], expected[name]) for name in expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_kill_right_after_the_record_changes_no_byte(tmp_path, workers):
    settings = {"workers": workers, "batch_norm": True}
    assert forked(tmp_path / "straight", **settings) == [0, "finished"]
    assert forked(tmp_path / "killed", dies_after_record=True, **settings) is None
    assert read_halvings(tmp_path / "killed") == HALVED
    newest = latest_valid(tmp_path / "killed/checkpoints")
    assert newest is None or read_state(newest)["step"] <= 3
    assert forked(tmp_path / "killed", **settings) == [0, "finished"]
    assert_same_run(tmp_path / "killed", tmp_path / "straight")


def test_a_resume_from_before_the_step_has_whole_micro_batches_up_to_it(tmp_path):
    assert forked(tmp_path / "straight", batch_norm=True) == [0, "finished"]
    assert forked(tmp_path / "again", batch_norm=True) == [0, "finished"]
    for folder in (tmp_path / "again/checkpoints").iterdir():
        if folder.name != "step_00000002":
            (folder / "manifest.json").unlink()
    assert forked(tmp_path / "again", batch_norm=True) == [0, "finished"]
    assert_same_run(tmp_path / "again", tmp_path / "straight")


def test_two_halvings_in_one_step_and_one_later_are_replayed(tmp_path):
    class ScarcerToy(ScarceToy):
        def is_full(self, step, samples):
            return samples > {3: 3, 5: 2}.get(step, 12)

    scarce = {"task": ScarcerToy, "batch_norm": True}
    assert forked(tmp_path / "straight", **scarce) == [0, "finished"]
    expected = (Halving(3, 12, 6), Halving(3, 6, 3), Halving(5, 3, 2))
    assert read_halvings(tmp_path / "straight") == expected
    for _ in range(3):
        assert forked(tmp_path / "killed", dies_after_record=True, **scarce) is None
    assert forked(tmp_path / "killed", **scarce) == [0, "finished"]
    assert_same_run(tmp_path / "killed", tmp_path / "straight")


def test_the_log_the_summary_and_the_next_start_tell_of_it(tmp_path, capsys):
    assert start(tmp_path, steps=5, save_every=1) == [0, "finished"]
    out, err = capsys.readouterr()
    assert err.count("step 4: out of memory with micro-batches of 12; this step and those") == 1
    assert err.count("noise and BatchNorm statistics follow the micro-batches") == 1
    assert "micro-batches of 12 did not fit, so they had at most 6 from step 4 on" in out
    (row,) = rows(tmp_path, "out_of_memory")
    assert (row["step"], row["before"], row["micro_batch"]) == (3, 12, 6)
    METRICS_LINE.validate(row | {"time": 0.0})
    assert any("events" in path.name for path in (tmp_path / "tensorboard").iterdir())
    for name in ("step_00000005", "step_00000004"):
        (tmp_path / "checkpoints" / name / "manifest.json").unlink()
    assert start(tmp_path, task=ToyTask, steps=5, save_every=1) == [0, "finished"]
    out, _ = capsys.readouterr()
    assert "micro-batches of at most 6, not of --micro-batch 12, from step 4 on, where" in out
    assert "split into other micro-batches" not in out


def test_a_limit_on_the_memory_of_a_process_is_survived(tmp_path):
    # a new process: it has no freed memory of earlier tests
    growing = {"task": GrowingToy, "context": "spawn"} | QUIET
    assert forked(tmp_path / "small", **growing) == [0, "finished"]
    first, *_ = read_halvings(tmp_path / "small")
    assert first.step >= 3 and (first.before, first.micro_batch) == (12, 6)
    assert start(tmp_path / "large", task=ToyTask, **QUIET) == [0, "finished"]
    losses, expected = (
        [row["loss"] for row in rows(tmp_path / name, "train")] for name in ("small", "large")
    )
    assert losses == pytest.approx(expected, rel=1e-5)


def test_a_step_that_cannot_be_fetched_again_for_memory_is_done_by_the_next_start(
    tmp_path, monkeypatch
):
    def no_room(data, step, plan):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    with monkeypatch.context() as patched:
        patched.setattr(TrainingData, "restart", no_room)
        code, error = start(tmp_path / "ended")
    assert code == 75 and error.startswith("out_of_memory: out of memory in step 4 with micro-")
    assert start(tmp_path / "ended") == [0, "finished"]
    assert start(tmp_path / "straight") == [0, "finished"]
    assert_same_run(tmp_path / "ended", tmp_path / "straight")


def test_one_sample_that_does_not_fit_ends_the_run_with_a_valid_checkpoint(tmp_path):
    code, error = start(tmp_path, scarcity={"room": 0})
    ScarceToy.room = 6
    assert code == 2 and error.startswith("no_memory: out of memory in step 4")
    assert "--grad-checkpointing" in error and "\n" not in error
    assert read_state(latest_valid(tmp_path / "checkpoints"))["step"] == 3
    assert [halving.micro_batch for halving in read_halvings(tmp_path)] == [6, 3, 1]
    status = json.loads((tmp_path / "status.json").read_text())
    assert (status["state"], status["error"]["code"]) == ("failed", "no_memory")


def test_a_batch_norm_never_gets_a_single_sample(tmp_path):
    code, error = forked(tmp_path, scarcity={"room": 0}, batch_norm=True)
    assert code == 2 and "with micro-batches of 2 samples" in error


def test_memory_that_runs_out_in_the_update_ends_the_process_and_the_next_goes_on(
    tmp_path, monkeypatch
):
    update = step_module.update_weights

    def no_room(run, totals, buffers_before, step):
        if step == 3 and run.data.plan.size(step) == 12:
            run.optimizer.step()  # a part of the weights has changed
            raise torch.OutOfMemoryError("CUDA out of memory")
        return update(run, totals, buffers_before, step)

    monkeypatch.setattr(step_module, "update_weights", no_room)
    code, error = start(tmp_path / "ended", task=ToyTask)
    assert code == 75 and error.startswith("out_of_memory: out of memory in step 4 with micro-")
    assert read_state(latest_valid(tmp_path / "ended/checkpoints"))["step"] == 2
    assert start(tmp_path / "ended", task=ToyTask) == [0, "finished"]
    assert start(tmp_path / "straight", task=ScarceToy) == [0, "finished"]
    assert_same_run(tmp_path / "ended", tmp_path / "straight")


# ---- several processes


def collectives_of_a_step(output, micro_batch):
    """Number of collectives on host numbers in the second step of this rank."""
    calls, counts = [], []
    all_reduce = torch.distributed.all_reduce

    def counted(*arguments, **options):
        calls.append(None)
        return all_reduce(*arguments, **options)

    class CountingToy(ToyTask):
        def before_step(self, module, step, steps):
            super().before_step(module, step, steps)
            counts.append(len(calls))

    torch.distributed.all_reduce = counted
    settings = SETTINGS | {"micro_batch": micro_batch, "log_every": 100}
    train(CountingToy, output=output, **settings)
    return counts[2] - counts[1]


@pytest.mark.parametrize(("micro_batch", "expected"), [(6, 1), (3, 2)])
def test_a_step_has_one_collective_and_one_more_before_the_last_of_several_micro_batches(
    tmp_path, micro_batch, expected
):
    output = str(tmp_path / "run")
    counts = on_ranks(2, collectives_of_a_step, output, micro_batch, context="fork")
    assert counts == [expected, expected]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("task", [ScarceToy, SummingToy])
def test_a_rank_without_memory_before_the_last_micro_batch_halves_that_of_all(tmp_path, rank, task):
    scarce = {"task": task, "scarcity": {"rank": rank, "room": 2}}
    scarce |= {"micro_batch": 3, "batch_norm": True}
    assert start_processes(2, tmp_path / "run", **scarce) == [[0, "finished"]] * 2
    assert read_halvings(tmp_path / "run") == (Halving(3, 3, 2),)
    killed = start_processes(2, tmp_path / "killed", dies_after_record=True, **scarce)
    assert killed[0] is None and killed[1][0] == 75
    assert start_processes(2, tmp_path / "killed", **scarce) == [[0, "finished"]] * 2
    assert_same_run(tmp_path / "killed", tmp_path / "run")


def test_a_rank_without_memory_where_others_wait_ends_all_and_the_restart_goes_on(tmp_path):
    scarce = {"scarcity": {"rank": 1, "room": 3}, "micro_batch": 6, "batch_norm": True}
    results = start_processes(2, tmp_path / "run", **scarce)
    assert [code for code, _ in results] == [75, 75]
    assert results[0][1].startswith("lost_process: ")
    assert results[1][1].startswith("out_of_memory: ") and "\n" not in results[1][1]
    assert read_state(latest_valid(tmp_path / "run/checkpoints"))["step"] == 2
    assert read_halvings(tmp_path / "run") == (Halving(3, 6, 3),)
    assert start_processes(2, tmp_path / "run", **scarce) == [[0, "finished"]] * 2
    # as if the micro-batch had been known from the start
    (tmp_path / "known").mkdir()
    write_halvings(tmp_path / "known", [Halving(3, 6, 3)])
    (tmp_path / "known/settings.json").write_text("{}")
    assert start_processes(2, tmp_path / "known", **scarce) == [[0, "finished"]] * 2
    assert_same_run(tmp_path / "run", tmp_path / "known")


def test_synchronized_batch_norm_leaves_no_way_back(tmp_path):
    run = SimpleNamespace(
        world=World(0, 0, 2, torch.device("cpu")),
        config=SimpleNamespace(sync_bn=True),
        sharding=None,
        data=SimpleNamespace(plan=MicroBatchPlan(12, 2, 6)),
        output=tmp_path,
    )
    with pytest.raises(RunAgain), OutOfMemoryGuard(run, 4, 2):
        raise torch.OutOfMemoryError("CUDA out of memory")
    assert read_halvings(tmp_path) == (Halving(4, 6, 3),)


# ---- elsewhere


def test_a_calibration_run_that_runs_out_of_memory_decides_for_the_run(tmp_path):
    class FullToy(ScarceToy):
        def is_full(self, step, samples):
            return samples > 6

    budget = {"task": FullToy, "steps": None, "budget": "8s", "save_every": 0, "eval_every": 0}
    assert start(tmp_path, **budget) == [0, "finished"]
    assert read_halvings(tmp_path) == HALVED_AT_START
    assert not (tmp_path / ".calibration").exists()


@pytest.mark.parametrize("processes", [1, 2])
def test_an_evaluation_without_memory_ends_with_a_valid_checkpoint(tmp_path, processes):
    scarce = {"scarcity": {"place": "evaluation", "room": 3}, "eval_batch_size": 4}
    results = start_processes(processes, tmp_path / "run", **scarce)
    for code, error in results:
        assert code == 2 and error.startswith("no_memory: out of memory in the evaluation of 4")
        assert "--eval-batch-size" in error
    assert read_state(latest_valid(tmp_path / "run/checkpoints"))["step"] == 4


def test_images_that_cannot_be_drawn_for_memory_are_left_out(tmp_path, capsys):
    class DrawingToy(ToyTask):
        def draw_samples(self, batch, predictions):
            raise torch.OutOfMemoryError("CUDA out of memory")

    assert start(tmp_path, task=DrawingToy) == [0, "finished"]
    assert "out of memory while the samples were drawn" in capsys.readouterr().err
    assert not list(tmp_path.glob("evaluations/*/*.jpg"))


def test_a_model_that_does_not_fit_is_one_line(tmp_path):
    class LargeToy(ToyTask):
        def build_model(self):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 90.00 GiB\nMore")

    with pytest.raises(
        UserError, match=r"^out of memory \(CUDA out of memory. [^\n]*\); "
    ) as error:
        train(LargeToy, output=str(tmp_path), **SETTINGS)
    assert error.value.code == "no_memory"


def test_a_damaged_record_is_one_line_that_names_the_file(tmp_path):
    (tmp_path / "micro_batches.json").write_text('{"halvings": [{"step": 3}]}')
    with pytest.raises(UserError, match=r"micro_batches.json: expected the steps at which"):
        read_halvings(tmp_path)
