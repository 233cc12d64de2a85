"""`train --seeds`: several runs one after another, resumed after a stop, and their summary."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from visionloop.bin.commands.seeds import SeedsCommand, train_seeds
from visionloop.datasets.synthetic.writers import WRITERS
from visionloop.engine.config.options import resolve
from visionloop.engine.config.train_config import TrainConfig
from visionloop.engine.errors import UserError
from visionloop.tasks.classification.config import ClassificationConfig

ROOT = Path(__file__).parents[2]
# trains nothing: writes down that it was started, and a best score that follows from the seed; the
# first start of seed 1 is stopped
PROGRAM = """
import json, pathlib, sys
after = {word: sys.argv[place + 1] for place, word in enumerate(sys.argv[:-1])}
folder, seed = pathlib.Path(after["--output"]), int(after["--seed"])
folder.mkdir(parents=True, exist_ok=True)
with open(folder.parent / "starts.jsonl", "a") as log:
    log.write(json.dumps(sys.argv[1:]) + "\\n")
is_stopped = seed == 1 and not (folder / "status.json").exists()
scores = {"accuracy": 0.5 + seed / 100, "val_loss": float(seed)}
best = {"metric": "accuracy", "score": scores["accuracy"], "step": 3, "scores": scores}
state = "stopped" if is_stopped else "finished"
(folder / "status.json").write_text(json.dumps({"state": state, "best": best}))
sys.exit(75 if is_stopped else 0)
"""


@pytest.fixture
def command_of(tmp_path):
    """command_of(count, **flags) -> the command, whose launcher is PROGRAM."""
    (tmp_path / "launcher.py").write_text(PROGRAM)

    def make(count, **flags):
        flags = {"output": str(tmp_path / "many"), "steps": 3, "hflip": False, "lr": None} | flags
        settings = resolve((ClassificationConfig, TrainConfig), flags)
        launcher = str(tmp_path / "launcher.py")
        return SeedsCommand(launcher, "classification", flags, None, settings, count)

    return make


def starts(folder):
    lines = (folder / "starts.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_a_stopped_seed_ends_the_command_and_the_next_start_goes_on_with_it(command_of, capsys):
    command = command_of(3)
    assert train_seeds(command) == 75
    output = command.output
    assert sorted(path.name for path in output.glob("seed_*")) == ["seed_0", "seed_1"]
    assert "the same command goes on" in capsys.readouterr().err
    assert train_seeds(command) == 0
    assert "seed 0: finished before" in capsys.readouterr().out
    seeds = [words[words.index("--seed") + 1] for words in starts(output)]
    assert seeds == ["0", "1", "1", "2"]
    expected = ["train", "--output", str(output / "seed_0"), "--steps", "3", "--no-hflip"]
    assert starts(output)[0] == [*expected, "--seed", "0"]


def test_the_summary_has_mean_spread_and_range_of_every_score(command_of, capsys):
    command = command_of(3, seed=4)
    assert train_seeds(command) == 0
    out = capsys.readouterr().out
    content = json.loads((command.output / "seeds.json").read_text())
    assert [run["seed"] for run in content["runs"]] == [4, 5, 6]
    found = content["summary"]["val_loss"]
    assert found == {"mean": 5, "spread": 1, "min": 4, "max": 6}
    assert content["summary"]["accuracy"]["spread"] == pytest.approx(0.01)
    line = next(line for line in out.splitlines() if line.startswith("accuracy"))
    assert line.replace(" %", "").split() == ["accuracy", "55.00", "1.00", "54.00", "56.00"]
    assert train_seeds(command_of(1, seed=4)) == 0
    content = json.loads((command.output / "seeds.json").read_text())
    assert content["summary"]["val_loss"]["spread"] is None
    assert math.isclose(content["summary"]["val_loss"]["mean"], 4)


def test_seeds_of_other_settings_do_not_mix_and_more_seeds_may_follow(command_of):
    train_seeds(command_of(1))
    with pytest.raises(UserError, match=r"--lr: the runs in .* have 0.001, this command has 0.1"):
        train_seeds(command_of(1, lr=0.1))
    assert train_seeds(command_of(1, workers=1)) == 0  # another machine
    assert train_seeds(command_of(2)) == 75 and len(starts(command_of(1).output)) == 2


def test_resume_and_torchrun_are_refused_with_what_to_do(command_of, monkeypatch):
    with pytest.raises(UserError, match="--resume: names one checkpoint"):
        train_seeds(command_of(2, resume="runs/a/checkpoints/step_00000001"))
    command = command_of(2)
    command.output.mkdir()
    (command.output / "settings.json").write_text("{}")
    with pytest.raises(UserError, match="is the folder of a single run"):
        train_seeds(command)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"for each seed: --seed S --output .*/seed_S"):
        train_seeds(command_of(2))


@pytest.mark.slow
def test_two_seeds_train_and_only_the_seed_differs(tmp_path):
    (tmp_path / "data").mkdir()
    WRITERS["classification"](tmp_path / "data", 0, images={"train": 8, "val": 8})
    words = "train --model tiny --from-scratch --image-size 32 --steps 1 --workers 0 --threads 1"
    command = [sys.executable, str(ROOT / "bin/classification.py"), *words.split()]
    command += ["--data", str(tmp_path / "data"), "--output", str(tmp_path / "many")]
    command += ["--device", "cpu", "--precision", "fp32", "--seeds", "2"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "best scores of 2 seeds" in done.stdout
    settings = [
        json.loads((tmp_path / "many" / name / "settings.json").read_text())["settings"]
        for name in ("seed_0", "seed_1")
    ]
    different = {name for name in settings[0] if settings[0][name] != settings[1][name]}
    assert different == {"seed", "output"}
    content = json.loads((tmp_path / "many" / "seeds.json").read_text())
    for run in content["runs"]:
        status = json.loads((tmp_path / "many" / run["folder"] / "status.json").read_text())
        assert run["best"]["scores"] == pytest.approx(status["best"]["scores"])
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.stdout.count("finished before") == 2
