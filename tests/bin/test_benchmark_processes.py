"""The benchmarks whose subject is processes, at a tiny size, and quick starts of commands."""

import gc
import json
import subprocess
import sys

import pytest
from click.testing import CliRunner
from torchrun_runs import write_classification

from visionloop.bin.benchmark import command
from visionloop.bin.commands.startup import heavy_imports


def rows_of(tmp_path, *words):
    file = tmp_path / "rows.jsonl"
    result = CliRunner().invoke(
        command, [*words, "--device", "cpu", "--json", str(file)], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.slow
def test_two_processes_scale_strongly_and_weakly_whole_and_sharded(tmp_path):
    data = str(write_classification(tmp_path / "data"))
    small = [
        "--data",
        data,
        "--image-size",
        "32",
        "--batch-size",
        "4",
        "--processes",
        "2",
        "--steps",
        "2",
        "--repeats",
        "2",
        "--shard",
        "none",
        "--shard",
        "full",
    ]
    rows = rows_of(tmp_path, "scaling", *small)
    assert [(row["processes"], row["shard"], row["scaling"]) for row in rows] == [
        (2, shard, mode) for shard in ("none", "full") for mode in ("strong", "weak")
    ]
    assert rows[0]["messages"] < rows[2]["messages"]
    for row in rows:
        low, high = row["collectives_95_percent"]
        assert (
            low <= row["collectives_percent"] <= high
            and row["step_ms"] > 0
            and row["benchmark"] == "scaling"
        )


def test_parts_of_a_start_are_the_whole(tmp_path):
    (row,) = rows_of(tmp_path, "startup", "--task", "classification", "--repeats", "1")
    assert row["task"] == "classification" and row["help_seconds"] > 0
    parts = ("imports_seconds", "data_seconds", "model_seconds", "step_seconds")
    assert sum(row[name] for name in parts) == pytest.approx(row["first_step_seconds"], abs=0.05)


def test_help_of_every_launcher_comes_without_torch():
    for task_name in ("classification", "detection", "segmentation", "super_resolution"):
        code = f"import sys, visionloop.bin.{task_name} as launcher; "
        code += "launcher.commands.main(['train', '--help'], standalone_mode=False)"
        code += "; assert not {'torch', 'transformers', 'scipy', 'PIL'} & sys.modules.keys()"
        subprocess.run([sys.executable, "-P", "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_the_collector_works_again_after_heavy_imports():
    code = f"""
import gc
from {heavy_imports.__module__} import heavy_imports
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
    with heavy_imports():  # torch is imported already
        assert gc.isenabled()
    assert gc.get_freeze_count() == frozen
