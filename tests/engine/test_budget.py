"""`--budget`: the steps are estimated once, the run is that of its steps, and the time ends it."""

import json
import shutil
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch.utils.tensorboard  # noqa: F401 - once here, not in every forked rank
from toy_task import ToyTask

from visionloop.engine.autotune.calibration import undisturbed
from visionloop.engine.autotune.steps import (
    SLACK,
    correct_for_contention,
    is_precise,
    run_seconds,
    steps_within,
)
from visionloop.engine.budget import LEAVING_SECONDS, Budget, Figures, TimeLeft, read_budget
from visionloop.engine.checkpoints.folder import latest_valid
from visionloop.engine.checkpoints.start import CALIBRATION_FOLDER
from visionloop.engine.checkpoints.stored_tensors import is_sharded
from visionloop.engine.checkpoints.writer import load_tensors
from visionloop.engine.config.options import Duration, build, duration_text, resolve
from visionloop.engine.config.resolve import resolve_auto
from visionloop.engine.config.train_config import TrainConfig
from visionloop.engine.errors import UserError
from visionloop.engine.system.profiling import Clock
from visionloop.engine.system.signals import StopFlag
from visionloop.engine.testing.short_runs import logged, on_ranks, same_bits
from visionloop.engine.train import train

SETTINGS = dict(
    batch_size=8,
    micro_batch=8,
    lr=1e-2,
    threads=1,
    workers=0,
    device="cpu",
    precision="fp32",
    log_every=1,
    batch_norm=True,
    save_every=1,
    keep=999,
    eval_every=4,
)
SLOW = dict(slow_seconds=0.02)  # for a sample: about five steps a second, so that few fit


def trained(output, budget, *, left=None, **changes):
    """A run with this budget, of which `left` seconds are left when it begins."""
    began = None if left is None else time.monotonic() - (Duration(budget) - left)
    return train(
        ToyTask, output=str(output), budget=budget, began=began, **SETTINGS | SLOW | changes
    )


def trained_soon(output, **changes):
    """A run whose steps were estimated, with as few seconds as this machine allows now."""
    for left in (5.0, 12.0, 30.0):
        try:
            return trained(output, "1h", left=left, **changes)
        except UserError as error:
            assert error.code == "budget_too_small"
    raise AssertionError("half a minute is too little for a handful of steps")


@pytest.fixture(scope="module")
def budgeted(tmp_path_factory):
    """(folder, result) of a run whose steps were estimated and, most likely, ended."""
    output = tmp_path_factory.mktemp("runs") / "budgeted"
    return output, trained_soon(output)


def test_a_run_with_a_budget_is_bit_for_bit_the_run_of_its_steps(budgeted, tmp_path):
    output, result = budgeted
    steps = json.loads((output / "settings.json").read_text())["settings"]["steps"]
    assert steps["source"] == "auto" and 2 <= result.step <= steps["value"] < 1000
    train(ToyTask, output=str(tmp_path / "straight"), steps=steps["value"], **SETTINGS)
    for file in ("model.safetensors", "ema.safetensors", "optimizer.safetensors"):
        own, other = (
            load_tensors(run / "checkpoints" / f"step_{result.step:08d}" / file)
            for run in (output, tmp_path / "straight")
        )
        assert own.keys() == other.keys() and all(same_bits(own[name], other[name]) for name in own)
    runs = (output, tmp_path / "straight")
    rows = [
        [row for row in logged(run) if row["kind"] == "train" and row["step"] <= result.step]
        for run in runs
    ]
    assert rows[0] == rows[1] and len(rows[0]) == result.step


def test_it_ends_finished_with_an_evaluation_and_a_best_model(budgeted):
    output, result = budgeted
    status = json.loads((output / "status.json").read_text())
    assert result.state == status["state"] == "finished" and result.best is not None
    assert (output / "best" / "model.safetensors").is_file() and not (
        output / CALIBRATION_FOLDER
    ).exists()
    last = [row["step"] for row in logged(output) if row["kind"] == "eval"][-1]
    assert last >= result.step - 1
    state = json.loads(
        (output / "checkpoints" / f"step_{result.step:08d}" / "state.json").read_text()
    )
    assert not [name for name in state["settings"] if "budget" in name or "seconds" in name]


def test_a_finished_run_says_so_and_another_budget_is_refused(budgeted, capsys):
    output, result = budgeted
    again = trained(output, "1h")
    assert (again.state, again.step) == (
        "finished",
        result.step,
    ) and "nothing to do" in capsys.readouterr().out
    with pytest.raises(
        UserError,
        match=r"^--budget: the length .* was estimated for 1h00m .*, this command has 2h00m",
    ) as caught:
        trained(output, "2h")
    assert caught.value.field == "budget" and f"--steps {read_budget(output)['steps']}" in str(
        caught.value
    )


def test_a_run_killed_before_its_first_checkpoint_keeps_its_steps_and_its_time(
    budgeted, tmp_path, capsys
):
    output, _ = budgeted
    for name in ("settings.json", "budget.json"):
        shutil.copy(output / name, tmp_path / name)
    record = json.loads((tmp_path / "budget.json").read_text())
    (tmp_path / "budget.json").write_text(
        json.dumps(record | {"used_seconds": 3600.0, "ended_at": None})
    )
    result = trained(tmp_path, "1h")
    assert (
        "steps fit" not in capsys.readouterr().out
        and read_budget(tmp_path)["steps"] == record["steps"]
    )
    assert (result.state, result.step, result.best["step"]) == ("finished", 1, 1)


class StopAtCheckpoints(StopFlag):
    """Raised once the run has written so many checkpoints; a calibration run writes none there."""

    def __init__(self, output, checkpoints):
        super().__init__()
        self.output, self.checkpoints = output, checkpoints

    def __call__(self):
        return len(list(self.output.glob("checkpoints/step_*"))) >= self.checkpoints


def test_a_stopped_run_resumes_its_time_without_measuring_again(tmp_path, capsys):
    first = trained_soon(tmp_path, stop=StopAtCheckpoints(tmp_path, 2))
    record = json.loads((tmp_path / "budget.json").read_text())
    assert (
        first.state == "stopped"
        and "steps fit" in capsys.readouterr().out
        and record["used_seconds"] > 3560
    )
    (tmp_path / "budget.json").write_text(json.dumps(record | {"used_seconds": 3600.0}))
    ended = trained(tmp_path, "1h")  # nothing is left: one more step, evaluated and saved
    printed = capsys.readouterr().out
    assert "steps fit" not in printed and "resuming after step" in printed
    assert f"the budget ended the run at step {first.step + 1} of {record['steps']}" in printed
    assert (ended.state, ended.step, ended.best is None) == ("finished", first.step + 1, False)
    after = read_budget(tmp_path)
    assert (after["steps"], after["ended_at"]) == (record["steps"], ended.step) and after[
        "used_seconds"
    ] > 3600
    # without a limit it resumes
    result = train(ToyTask, output=str(tmp_path), steps=record["steps"], **SETTINGS)
    assert (result.state, result.step) == ("finished", record["steps"])
    assert [row["step"] for row in logged(tmp_path) if row["kind"] == "train"] == list(
        range(1, result.step + 1)
    )


def test_a_stop_while_measuring_leaves_nothing_half_done(tmp_path):
    stop = StopFlag()
    stop.requested = True
    result = trained(tmp_path, "1h", stop=stop)
    assert (result.state, result.step, result.best) == ("stopped", 0, None)
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "stopped"
    assert (
        not (tmp_path / CALIBRATION_FOLDER).exists() and not (tmp_path / "settings.json").exists()
    )
    assert trained_soon(tmp_path).state == "finished"


@pytest.mark.parametrize("left", [0.0, 0.6])
def test_a_budget_that_nothing_fits_into_is_one_line(left, tmp_path):
    with pytest.raises(UserError, match=r"^--budget 1h00m: [^\n]+$") as caught:
        trained(tmp_path, "1h", left=left, slow_seconds=0.05)
    assert caught.value.code == "budget_too_small" and not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("other", [{"steps": 5}, {"epochs": 1.0}])
def test_a_budget_excludes_steps_and_epochs(other, tmp_path):
    with pytest.raises(UserError, match=rf"^--budget: give it or --{next(iter(other))}, not both"):
        trained(tmp_path, "1h", **other)


def budgeted_on_this_rank(output, shard):
    result = trained_soon(output, micro_batch=4, shard=shard)
    return [result.state, result.step, result.best["step"]]


@pytest.mark.slow
@pytest.mark.parametrize("shard", ["none", "full"])
def test_two_processes_agree_on_steps_and_end(tmp_path, shard):
    output = tmp_path / "run"
    first, second = on_ranks(2, budgeted_on_this_rank, str(output), shard, context="fork")
    assert first == second and first[0] == "finished"
    assert not (output / CALIBRATION_FOLDER).exists()
    newest = latest_valid(output / "checkpoints")
    assert newest is not None and is_sharded(newest) == (shard == "full")


# what fits --------------------

FIGURES = Figures(start=1.0, first_step=0.2, step=0.1, evaluation=2.0, save=0.5, last_save=1.0)


def config_of(steps):
    settings = resolve((ToyTask.config_class, TrainConfig), {"steps": steps, "batch_size": 8})
    return build(TrainConfig, resolve_auto(settings, 800, "cpu", {}, ToyTask.resolve_defaults))


def test_the_estimated_steps_fit_and_one_more_does_not():
    for seconds in (20.0, 300.0, 7200.0):
        steps = steps_within(config_of, FIGURES, 800, seconds)
        room = (seconds - LEAVING_SECONDS) * (1 + SLACK)
        assert (
            run_seconds(config_of(steps), FIGURES, 800)
            <= room
            < run_seconds(config_of(steps + 1), FIGURES, 800)
        )


def test_a_cost_counts_new_images_once_and_evaluations_and_saves_at_their_intervals():
    config = replace(config_of(300), eval_every=100, save_every=60)
    assert run_seconds(config, FIGURES, 800) == pytest.approx(
        1.0 + 100 * 0.2 + 200 * 0.1 + 3 * 2.0 + 5 * 0.5 + 1.0
    )
    timed = replace(config, save_every=Duration("10s"))  # 40 s of steps
    assert run_seconds(timed, FIGURES, 800) == pytest.approx(1.0 + 40 + 3 * 2.0 + 5 * 0.5 + 1.0)
    assert steps_within(config_of, FIGURES, 800, 3.0) == 0


@pytest.mark.parametrize(
    ("steps", "images", "waiting_share", "expected"),
    [(6, 32, 0.1, True), (7, 32, 0.1, False), (6, 33, 0.1, False), (6, 32, 0.11, False)],
)
def test_a_rough_calibration_is_enough_for_long_steps_without_much_reading(
    steps, images, waiting_share, expected
):
    rough = SimpleNamespace(evaluations=[(5, 1.0), (16, 2.0)], waiting_share=waiting_share)
    assert is_precise(rough, steps, images) == expected


def test_half_of_the_contention_is_corrected():
    assert correct_for_contention(FIGURES, 1.0) == FIGURES and correct_for_contention(
        FIGURES, 4.0
    ).step == pytest.approx(FIGURES.step / 2)
    clock = Clock()
    with clock.measure("data_wait"):
        time.sleep(0.05)
    assert clock.busy["data_wait"] < clock.seconds["data_wait"] / 2


def test_disturbed_steps_hardly_count():
    assert undisturbed([0.1] * 12 + [5.0] * 4) == pytest.approx(0.1)
    assert undisturbed([0.3]) == 0.3


@pytest.mark.parametrize(
    ("remaining", "expected"),
    [
        (60.0, TimeLeft.ENOUGH),
        (6.0, TimeLeft.SHORT),
        (3.0, TimeLeft.OVER),
        (-1.0, TimeLeft.OVER),
    ],
)
def test_time_is_short_before_it_is_over(remaining, expected, tmp_path):
    budget = Budget(tmp_path, 100.0, time.monotonic(), used=100.0 - remaining, figures=FIGURES)
    assert budget.time_left(Clock()) == expected


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2h", 7200), ("90m", 5400), ("300s", 300), ("1h30m", 5400), ("1.5H", 5400), (" 1m5s ", 65)],
)
def test_a_duration_is_read_and_written(text, seconds):
    assert Duration(text) == seconds and Duration(str(Duration(text))) == seconds


@pytest.mark.parametrize("text", ["", "5", "5 minutes", "m", "1h-5m", "5m1h", "nan", "1..5h"])
def test_another_duration_is_one_line_that_names_the_flag(text):
    with pytest.raises(
        UserError, match=r"^--budget: expected a time as in 2h, 90m, 300s or 1h30m, got"
    ):
        resolve((TrainConfig,), {"budget": text})


def test_a_duration_is_formatted_for_people():
    assert [duration_text(seconds) for seconds in (42, 300, 7500)] == ["42s", "5m00s", "2h05m"]
