"""The end of a run: the score with its interval, commands that work, and where the time went."""

import math
import shlex
import sys
from types import SimpleNamespace

import pytest
from toy_task import ToyTask

from visionloop.engine.logging.messages import (
    best_line,
    interval_of,
    launcher_command,
    slowest_part,
    time_line,
)
from visionloop.engine.train import train

SETTINGS = dict(
    steps=8,
    batch_size=8,
    micro_batch=32,
    eval_every=4,
    save_every=100,
    workers=0,
    threads=1,
    device="cpu",
    precision="fp32",
)


def test_the_steps_are_the_slowest_part_unless_another_takes_a_tenth():
    shares = {"compute": 0.8, "data_wait": 0.09, "evaluation": 0.05, "other": 0.06}
    assert slowest_part(shares) == "compute"
    assert slowest_part(shares | {"evaluation": 0.2}) == "evaluation"


def test_the_last_line_names_the_slowest_part_and_its_share():
    shares = {"compute": 0.8, "data_wait": 0.02, "evaluation": 0.05, "other": 0.03}
    assert time_line(shares) == "time: the largest part was training steps, 80 %"
    last = "time: the largest part besides the training steps was waiting for data, 31 %"
    assert time_line(shares | {"data_wait": 0.31}) == last


def test_a_finished_run_ends_with_its_score_its_commands_and_its_time(tmp_path, capsys):
    output = tmp_path / "my run"
    result = train(ToyTask, output=str(output), data="toy images", eval_batch_size=7, **SETTINGS)
    *_, first, second, third, last = capsys.readouterr().out.splitlines()
    low, high = interval_of(output, result.best["step"], "accuracy")
    interval = f"(95 %: {100 * low:.2f} % to {100 * high:.2f} %)"
    score = f"{100 * result.best['score']:.2f} % at step {result.best['step']} of 8 {interval}"
    assert first == f"finished: best accuracy {score}, in {output / 'best'}"
    best = str(output / "best")
    options = ["--model", best, "--data", "toy images", "--batch-size", "7"]
    words = shlex.split(third.removeprefix("evaluate: "))
    assert words[1:] == ["bin/toy.py", "evaluate", *options]
    assert second.startswith("predict: ") and shlex.split(second)[5] == best
    assert last.startswith("time: the largest part ")


@pytest.mark.parametrize("score", [None, math.nan])
def test_a_run_without_any_score_says_so(tmp_path, score):
    state = SimpleNamespace(best={"score": score, "step": 4}, step=8)
    spec = SimpleNamespace(label="AP", show=str)
    line = best_line(SimpleNamespace(best_metric=spec, state=state, output=tmp_path))
    assert line.startswith("finished: no evaluation gave a number for AP: check the validation")
    assert line.endswith(f"the weights of step 4 are in {tmp_path / 'best'}")


@pytest.mark.parametrize(
    ("called", "expected"),
    [
        ("/opt/vl/bin/super_resolution.py", "python /opt/vl/bin/super_resolution.py"),
        ("bin/super_resolution.py", "python bin/super_resolution.py"),
        ("/usr/bin/visionloop-super-resolution", "visionloop-super-resolution"),
        ("bin/train.py", "python bin/super_resolution.py"),
    ],
)
def test_printed_commands_start_as_the_program_was_called(called, expected, monkeypatch):
    monkeypatch.setattr(sys, "argv", [called, "train"])
    assert launcher_command("super_resolution") == expected
