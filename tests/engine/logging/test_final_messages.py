"""The end of a run: the score with its interval, commands that work, and advice that follows from where the time went."""

import re
import shlex
import sys

import pytest
from toy_task import ToyTask

from visionloop.engine.config.options import Seconds
from visionloop.engine.config.train_config import TrainConfig
from visionloop.engine.logging.messages import interval_of, program, rarer, slowest, worth_changing
from visionloop.engine.system.profiling import PARTS
from visionloop.engine.train import train

CONFIG = dict(
    steps=1000, batch_size=32, micro_batch=32, eval_every=50, save_every=100, workers=0, threads=1, device="cpu", precision="fp32"
)  # fmt: skip
ONE_CORE = {"cores": 1, "bf16": False, "free": None}


def advice(part, share, *, cache=None, machine=None, **changes):
    shares = dict.fromkeys((*PARTS, "other"), 0.0) | {"compute": 1 - share, part: share}
    return worth_changing(
        part, shares, TrainConfig(**CONFIG | changes), cache, ONE_CORE | (machine or {}), steps=1000
    )


def test_the_steps_are_the_slowest_part_unless_another_takes_a_tenth():
    shares = {"compute": 0.8, "data_wait": 0.09, "evaluation": 0.05, "other": 0.06}
    assert slowest(shares) == "compute"
    assert slowest(shares | {"evaluation": 0.2}) == "evaluation"


@pytest.mark.parametrize(("expected", "given"), [
    ("--workers 3", dict(machine={"cores": 4})),
    ("--workers 4", dict(machine={"cores": 6}, workers=2, threads=2, cache="none")),
    ("--cache ram", dict(cache="none")),
    (None, dict(cache="ram")),
    (None, dict(machine={"cores": 2}, workers=1)),
])  # fmt: skip
def test_waiting_for_data_asks_for_idle_cores_and_then_for_kept_images(expected, given):
    told = advice("data_wait", 0.4, **given)
    assert told is None if expected is None else told.startswith(expected + " (")


def test_evaluations_become_so_rare_that_they_take_a_tenth():
    told = advice("evaluation", 0.5)
    assert told == "--eval-every 450 (now 50, for a tenth of the time)"
    # they took as long as the steps; a ninth as many take a tenth of both together
    assert advice("evaluation", 0.99) == "--eval-every 1000 (now 50)"
    assert (
        advice("evaluation", 0.5, eval_every=0) is None
        and advice("evaluation", 0.5, eval_every=600) is None
    )


@pytest.mark.parametrize(("expected", "given"), [
    ("--save-async", dict(save_async=False)),
    ("--eval-every 108 (each better score is saved)", dict()),
    ("--save-every 108 (now 50", dict(save_every=50, eval_every=0)),
    ("--save-every 240s (now 60s)", dict(save_every=Seconds(60))),
    (None, dict(save_every=900, eval_every=0)),
])  # fmt: skip
def test_checkpoints_go_to_a_thread_and_then_become_rarer(expected, given):
    told = advice("checkpointing", 0.1935, **given)
    assert told is None if expected is None else told.startswith(expected)


@pytest.mark.parametrize(("expected", "given"), [
    ("--precision bf16", dict(machine={"bf16": True, "free": 0.9})),
    ("--no-grad-checkpointing (90 %", dict(machine={"bf16": True, "free": 0.9}, precision="bf16", grad_checkpointing=True)),
    ("--micro-batch auto (90 %", dict(machine={"bf16": True, "free": 0.9}, precision="bf16", micro_batch=4)),
    (None, dict(machine={"bf16": True, "free": 0.3}, precision="bf16", micro_batch=4, device="cuda")),
    ("--threads 4 (3 of 4", dict(machine={"cores": 4})),
    (None, dict()),
])  # fmt: skip
def test_slow_steps_ask_for_what_the_machine_has_and_the_run_did_not_use(expected, given):
    told = advice("compute", 0.9, **given)
    assert told is None if expected is None else told.startswith(expected)


def test_logging_becomes_rarer_and_start_up_is_nobodys_fault():
    assert advice("logging", 0.2) == "--log-every 500 (now 50)" and advice("other", 0.6) is None


def test_what_happens_twice_at_most_is_not_made_rarer():
    assert (
        rarer(50, 0.5, 1000) == 450
        and rarer(500, 0.5, 1000) is None
        and rarer(50, 0.05, 1000) is None
    )


def test_a_finished_run_tells_its_score_its_commands_and_its_time_in_six_lines(tmp_path, capsys):
    output = tmp_path / "my run"
    result = train(
        ToyTask,
        output=str(output),
        data="toy images",
        eval_batch_size=7,
        **CONFIG | dict(steps=8, batch_size=8, eval_every=4),
    )
    *_, first, second, third, last = capsys.readouterr().out.splitlines()
    low, high = interval_of(output, result.best["step"], "accuracy")
    span = f"(95 %: {100 * low:.2f} % to {100 * high:.2f} %)"
    shown = f"{100 * result.best['score']:.2f} % at step {result.best['step']} of 8 {span}"
    assert first == f"finished: best accuracy {shown}, in {output / 'best'}"
    words = shlex.split(third.removeprefix("evaluate: "))
    assert words[1:] == [
        "bin/toy.py",
        "evaluate",
        "--model",
        str(output / "best"),
        "--data",
        "toy images",
        "--batch-size",
        "7",
    ]
    assert second.startswith("predict: ") and shlex.split(second)[5] == str(output / "best")
    assert re.match(r"time: .*most went into ", last)


@pytest.mark.parametrize(("called", "expected"), [
    ("/opt/vl/bin/super_resolution.py", "python /opt/vl/bin/super_resolution.py"),
    ("bin/super_resolution.py", "python bin/super_resolution.py"),
    ("/usr/bin/visionloop-super-resolution", "visionloop-super-resolution"),
    ("bin/train.py", "python bin/super_resolution.py"),
])  # fmt: skip
def test_commands_are_told_as_the_program_was_called(called, expected, monkeypatch):
    monkeypatch.setattr(sys, "argv", [called, "train"])
    assert program("super_resolution") == expected
