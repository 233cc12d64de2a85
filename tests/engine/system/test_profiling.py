"""The clock, the time breakdown and the profiler trace."""

import json
import time
from dataclasses import replace

import pytest
import torch
from toy_task import ToyConfig, ToyTask

from visionloop.engine import loop
from visionloop.engine.autotune.calibration import calibrate
from visionloop.engine.budget import LEAVING_SECONDS, Budget, Figures, TimeLeft
from visionloop.engine.distributed import World
from visionloop.engine.run import RunSpec
from visionloop.engine.system.profiling import PARTS, Clock, parse_span
from visionloop.engine.system.signals import StopFlag
from visionloop.engine.testing.short_runs import CONFIG
from visionloop.engine.train import train

TOY = {
    "data": "toy",
    "model": "toy",
    "device": "cpu",
    "precision": "fp32",
    "threads": 1,
    "workers": 0,
    "batch_size": 8,
    "log_every": 4,
}


def traced(output, **settings):
    train(ToyTask, output=str(output), **TOY, **settings)
    return json.loads((output / "profile" / "trace_rank0.json").read_text())["traceEvents"]


def optimizer_steps(events):
    # the EMA moves by steps of SGD; those of AdamW are the run's own
    return len(
        [event for event in events if event.get("name", "").startswith("Optimizer.step#AdamW")]
    )


def test_profile_writes_a_trace_that_parses_and_holds_the_steps_that_were_asked_for(
    tmp_path, capsys
):
    events = traced(tmp_path, steps=6, profile="2:3")
    assert optimizer_steps(events) == 3
    assert {"aten::conv2d", "aten::cross_entropy_loss"} <= {event.get("name") for event in events}
    out = capsys.readouterr().out
    assert (
        "aten::" in out and f"profile: {tmp_path / 'profile' / 'trace_rank0.json'} opens in" in out
    )


def test_a_profile_longer_than_the_run_ends_with_it(tmp_path):
    assert optimizer_steps(traced(tmp_path, steps=3, profile="1:50")) == 2


def test_profiling_changes_no_bit_of_the_result(tmp_path):
    train(ToyTask, output=str(tmp_path / "plain"), steps=4, **TOY)
    traced(tmp_path / "traced", steps=4, profile="0:4")
    first, second = (
        (tmp_path / name / "checkpoints" / "step_00000004" / "model.safetensors").read_bytes()
        for name in ("plain", "traced")
    )
    assert first == second


def test_a_profile_that_the_run_never_reaches_writes_nothing(tmp_path):
    train(ToyTask, output=str(tmp_path), steps=2, profile="5:2", **TOY)
    assert not (tmp_path / "profile").exists()


def test_a_span_is_a_first_step_and_a_number():
    assert parse_span("10:5") == (10, 5) and parse_span("0:1") == (0, 1)


@pytest.mark.parametrize(
    "text", ["", "10", "10:", ":5", "10:0", "-1:5", "10:-5", "a:b", "1:2:3", "1.5:2"]
)
def test_a_wrong_span_is_one_line_that_names_the_flag(text):
    with pytest.raises(ValueError, match=r"^--profile: expected START:COUNT") as caught:
        parse_span(text)
    assert repr(text) in str(caught.value) and "\n" not in str(caught.value)


def test_the_shares_of_the_time_breakdown_sum_to_one():
    clock = Clock()
    for part in PARTS:
        with clock.measure(part):
            time.sleep(0.004)
    time.sleep(0.01)
    time_breakdown = clock.time_breakdown()
    assert set(time_breakdown) == {*PARTS, "other"}
    assert sum(row["share"] for row in time_breakdown.values()) == pytest.approx(1, abs=1e-3)
    assert (
        all(row["seconds"] >= 0.004 for row in time_breakdown.values())
        and time_breakdown["other"]["seconds"] >= 0.01
    )


def test_the_time_breakdown_of_a_run_accounts_for_all_of_its_time(tmp_path):
    began = time.perf_counter()
    train(ToyTask, output=str(tmp_path), steps=6, eval_every=2, slow_seconds=0.002, **TOY)
    wall = time.perf_counter() - began
    (row,) = [
        row
        for row in map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
        if row["kind"] == "time_breakdown"
    ]
    parts = {part: row[part] for part in (*PARTS, "other")}
    assert sum(part["share"] for part in parts.values()) == pytest.approx(1, abs=1e-3)
    assert sum(part["seconds"] for part in parts.values()) <= wall + 0.01
    assert parts["data_wait"]["seconds"] >= 6 * 8 * 0.002 and parts["evaluation"]["seconds"] > 0


def test_time_is_counted_even_when_a_part_raises():
    clock = Clock()
    with pytest.raises(KeyError), clock.measure("evaluation"):
        time.sleep(0.002)
        raise KeyError
    assert clock.seconds["evaluation"] >= 0.002


def test_an_interval_is_the_time_of_a_step_without_evaluation_and_saves():
    clock = Clock()
    for _ in range(4):
        with clock.measure("compute"):
            time.sleep(0.003)
        with clock.measure("data_wait"):
            time.sleep(0.001)
    with clock.measure("evaluation"):
        time.sleep(0.02)
    step_ms, wait = clock.interval(4)
    compute, data_wait = clock.seconds["compute"], clock.seconds["data_wait"]
    assert step_ms == pytest.approx(1000 * (compute + data_wait) / 4) and wait == pytest.approx(
        data_wait / (compute + data_wait)
    )
    with clock.measure("compute"):
        time.sleep(0.005)
    step_ms, wait = clock.interval(5)
    assert step_ms == pytest.approx(1000 * (clock.seconds["compute"] - compute)) and wait == 0


class DeviceQueue:
    """A device that works behind the host: a step is launched at once, a read waits for it."""

    def __init__(self, monkeypatch, seconds):
        self.seconds, self.free_at = seconds, 0.0
        train_step = loop.train_step

        def launch(*arguments):
            losses, grad_norm = train_step(*arguments)
            self.free_at = max(self.free_at, time.perf_counter()) + self.seconds
            losses = {name: Pending(value, self.free_at) for name, value in losses.items()}
            return losses, Pending(grad_norm, self.free_at)

        monkeypatch.setattr(loop, "train_step", launch)


class Pending:
    """A scalar that can be read once the device has computed it."""

    def __init__(self, value, ready_at):
        self.value, self.ready_at = value, ready_at

    def __float__(self):
        time.sleep(max(0.0, self.ready_at - time.perf_counter()))
        return float(self.value)


@pytest.mark.parametrize("log_every", [1, 3])
def test_the_time_of_a_device_that_works_behind_the_host_is_that_of_the_steps(
    log_every, tmp_path, monkeypatch
):
    device = DeviceQueue(monkeypatch, seconds=0.1)
    train(ToyTask, output=str(tmp_path), steps=6, **TOY | {"log_every": log_every})
    rows = list(map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines()))
    for row in (row for row in rows if row["kind"] == "train"):
        assert row["step_ms"] >= 500 * device.seconds  # on a busy machine data is fetched meanwhile
    (time_breakdown,) = (row for row in rows if row["kind"] == "time_breakdown")
    assert time_breakdown["compute"]["seconds"] >= 3 * device.seconds


def test_a_calibration_run_measures_the_time_of_the_device(tmp_path, monkeypatch):
    DeviceQueue(monkeypatch, seconds=0.05)
    task = ToyTask(ToyConfig())
    train_set, val_set = task.build_datasets()
    config = replace(CONFIG, steps=6, batch_size=8, micro_batch=8, threads=1)
    spec = RunSpec(
        task=task,
        config=config,
        world=World(0, 0, 1, torch.device("cpu")),
        train_set=train_set,
        val_set=val_set,
        output=tmp_path,
        immutable_settings={},
    )
    calibration = calibrate(spec, StopFlag())
    assert min(calibration.step, calibration.first_step) >= 0.025


def test_the_clock_of_a_budget_counts_the_steps_that_the_device_is_behind(tmp_path):
    figures = Figures(start=0, first_step=0, step=0, evaluation=0, save=0, last_save=0)
    seconds = LEAVING_SECONDS + 5
    budget = Budget(tmp_path, seconds, time.monotonic(), steps=9, figures=figures)
    clock = Clock()
    clock.seconds["compute"] = 20.0
    clock.interval(2)  # 10 s a step
    clock.last["compute"] = 0.01  # of launching one
    assert budget.time_left(clock) is TimeLeft.OVER
