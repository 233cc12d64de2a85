"""The benchmark of starts: what it reads out of a run, and the whole of it on one task."""

import gc
import json
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner
from torch.utils.tensorboard import SummaryWriter

from visionloop.bin.benchmarks.startup import (
    PARTS,
    medians,
    parse_own_times,
    parts_of,
    startup,
    time_help,
)
from visionloop.bin.commands.cli import heavy_imports


def test_own_times_of_a_package_are_summed_over_its_modules_and_nothing_else():
    text = """import time: self [us] | cumulative | imported package
import time:      1500 |       1500 |     torch._C
a line of another program
import time:       500 |       2000 |   torch
import time:       250 |        250 |   torchvision.io
import time:        50 |       2300 | visionloop.tasks.detection.task
"""
    assert parse_own_times(text) == {"torch": 2.0, "torchvision": 0.25, "visionloop": 0.05}


def test_parts_of_a_start_follow_each_other_and_are_the_whole(tmp_path):
    began = time.time() - 2
    (tmp_path / ".lock").touch()
    (tmp_path / "settings.json").write_text("{}")
    writer = SummaryWriter(str(tmp_path / "tensorboard"))
    (tmp_path / "metrics.jsonl").write_text(
        json.dumps({"kind": "train", "step": 1, "time": time.time() + 3}) + "\n"
    )
    time.sleep(0.01)
    writer.add_hparams(
        {"lr": 1}, {"score": 1}, run_name="."
    )  # begins another file, as the end of a run does
    writer.close()
    *parts, whole = (parts_of(tmp_path, began)[name] for name in PARTS)
    assert sum(parts) == pytest.approx(whole)
    # the times of files are those of the kernel's last tick
    assert parts[0] > 1.9 and min(parts) > -0.02 and parts[-1] > 2.9


def test_help_of_every_launcher_comes_without_torch():
    for task_name in ("classification", "detection", "segmentation", "super_resolution"):
        assert time_help(task_name) > 0
        code = f"import sys, visionloop.bin.{task_name} as launcher; launcher.commands.main(['train', '--help'], standalone_mode=False)"
        code += "; assert not {'torch', 'transformers', 'scipy', 'PIL'} & sys.modules.keys()"
        subprocess.run([sys.executable, "-P", "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_the_collector_works_again_after_heavy_imports():
    code = """
import gc
from visionloop.bin.commands.cli import heavy_imports
try:
    with heavy_imports():
        assert not gc.isenabled()
        raise ImportError
except ImportError:
    pass
assert gc.isenabled() and gc.get_freeze_count() > 1000
"""
    subprocess.run([sys.executable, "-P", "-c", code], check=True)
    frozen = gc.get_freeze_count()
    with heavy_imports():  # torch is here already
        assert gc.isenabled()
    assert gc.get_freeze_count() == frozen


def test_medians_are_of_each_figure():
    assert medians({"a": [3.0, 1.0, 2.0], "b": [0.126]}, digits=2) == {"a": 2.0, "b": 0.13}


@pytest.mark.slow
def test_the_command_tells_of_help_imports_and_the_first_step(tmp_path):
    few = ["--task", "classification", "--repeats", "1", "--device", "cpu"]
    result = CliRunner().invoke(startup, [*few, "--json", str(tmp_path / "rows")])
    assert result.exit_code == 0, result.output
    (row,) = map(json.loads, (tmp_path / "rows").read_text().splitlines())
    assert row["help_seconds"] > 0
    # each with all before it
    assert (
        0
        < row["torch_seconds"]
        < row["torchvision_seconds"]
        < row["transformers_seconds"]
        <= row["task_seconds"]
    )
    assert sum(row[name] for name in list(PARTS)[:-1]) == pytest.approx(
        row["first_step_seconds"], abs=0.05
    )
    assert len(row["heaviest_imports_ms"]) == 10 and "torch" in row["heaviest_imports_ms"]
    assert "own ms of the heaviest imports" in result.output
