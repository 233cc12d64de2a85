"""The lines that a run prints before and while it trains."""

import re
import sys
import time

import pytest
import torch
from toy_task import ToyTask

from visionloop.engine.budget import Budget
from visionloop.engine.distributed import World
from visionloop.engine.logging.messages import sharding_text, unused_gpus
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


@pytest.mark.parametrize(
    ("shard", "size", "local_size", "text"),
    [
        ("none", 8, 8, ""),
        ("full", 8, 4, ", sharded over 8 processes"),
        ("node", 8, 8, ", sharded over 8 processes"),
        ("node", 8, 4, ", sharded over 4 processes on each of 2 nodes"),
        ("full", 1, 1, ", --shard full with one process: nothing is divided"),
        ("node", 2, 1, ", --shard node with one process on each node: nothing is divided"),
    ],
)
def test_the_summary_says_over_how_many_processes_a_run_is_sharded(shard, size, local_size, text):
    world = World(0, 0, size, torch.device("cpu"), local_size=local_size)
    assert sharding_text(shard, world) == text


def test_a_sharded_run_on_one_process_says_that_nothing_is_divided(tmp_path, capsys):
    train(ToyTask, output=str(tmp_path), steps=1, shard="full", **TOY)
    summary = capsys.readouterr().out.splitlines()[0]
    assert summary.startswith("toy: 40 training and 23 validation samples, 1 steps of 8 ")
    assert summary.endswith(" worker(s), --shard full with one process: nothing is divided")


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
