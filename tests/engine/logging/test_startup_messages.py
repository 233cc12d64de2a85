"""The lines that a run prints before and while it trains."""

import re
import sys
import time

import torch
from toy_task import ToyTask

from visionloop.engine.budget import Budget
from visionloop.engine.distributed import World
from visionloop.engine.logging.messages import unused_gpus
from visionloop.engine.logging.run_log import RunLog
from visionloop.engine.testing.short_runs import CONFIG, train_steps
from visionloop.engine.train import train

TOY = {
    "data": "toy",
    "model": "toy",
    "device": "cpu",
    "precision": "fp32",
    "threads": 1,
    "workers": 0,
    "batch_size": 8,
}


def test_a_single_process_with_several_gpus_prints_how_to_use_them_all(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(sys, "argv", ["bin/classification.py", "train", "--data", "my images"])
    launch = "torchrun --nproc-per-node 2 --shutdown-timeout 120"
    command = f"{launch} bin/classification.py train --data 'my images'"
    assert (
        unused_gpus(World(0, 0, 1, torch.device("cuda", 0)))
        == f"2 GPUs visible, 1 used; on all of them: {command}"
    )
    assert (
        unused_gpus(World(0, 0, 2, torch.device("cuda", 0))) is None
        and unused_gpus(World(0, 0, 1, torch.device("cpu"))) is None
    )
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert unused_gpus(World(0, 0, 1, torch.device("cuda", 0))) is None


class ToyWithNotes(ToyTask):
    def notes(self):
        return ["the images are made up"]


def test_the_lines_of_a_run_hold_the_score_so_far_and_the_clock_time_of_the_end(tmp_path, capsys):
    train(ToyWithNotes, output=str(tmp_path), steps=6, log_every=2, eval_every=2, **TOY)
    printed = capsys.readouterr().out
    assert printed.count("the images are made up\n") == 1
    first, second, third = (
        line for line in printed.splitlines() if re.match(r"step \d/6  loss", line)
    )
    assert "accuracy" not in first
    assert re.search(
        r"  accuracy [\d.]+ % \(best [\d.]+ % at step 2\)  ends in \ds, at \d\d:\d\d$", second
    )
    assert re.search(r"  accuracy [\d.]+ % \(best [\d.]+ % at step [24]\)  ends in 0s, at ", third)


def test_a_resumed_run_prints_its_best_score_at_once(tmp_path, capsys):
    train_steps(ToyTask(ToyTask.config_class()), tmp_path, config=CONFIG, stop_after=4)
    capsys.readouterr()
    train_steps(ToyTask(ToyTask.config_class()), tmp_path, config=CONFIG)
    line = next(
        line for line in capsys.readouterr().out.splitlines() if line.startswith("step 5/6  loss")
    )
    assert re.search(r"  accuracy best [\d.]+ % at step 3  ends in ", line)


def test_a_budget_bounds_the_expected_end(tmp_path):
    log = RunLog(
        tmp_path,
        World(0, 0, 1, torch.device("cpu")),
        ToyTask,
        steps=1000,
        start_step=0,
        evaluated_at=0,
        epoch_of=lambda step: 0,
    )
    assert log._seconds_left(0, step_ms=1000.0) == 1000
    log.budget = Budget(tmp_path, 60.0, time.monotonic())
    assert 50 < log._seconds_left(0, step_ms=1000.0) <= 60
    log.close()
