"""What `check` expects of a run beside what it takes: memory and disk are held to it here, time on quiet machines by the benchmark."""

import subprocess

import pytest

from visionloop.bin.benchmarks.estimate import COLUMNS, compare_task, folder_bytes, watch
from visionloop.bin.commands import check
from visionloop.datasets.synthetic.writers import WRITERS
from visionloop.engine.config.options import Seconds
from visionloop.engine.config.train_config import TrainConfig

SIZES = {"checkpoint": 1000, "best": 100, "evaluation": 10, "once": 1}


@pytest.mark.slow
def test_memory_and_disk_of_a_run_are_within_a_quarter_of_what_check_expects(tmp_path):
    (tmp_path / "data").mkdir()
    WRITERS["classification"](tmp_path / "data", 0, images={"train": 32, "val": 8})
    rows = compare_task(
        "classification", data=str(tmp_path / "data"), steps=40, workers=0, threads=1, device="cpu"
    )
    ratios = {row["figure"]: row["expected"] / row["measured"] for row in rows}
    assert ratios.keys() == COLUMNS.keys() and min(ratios.values()) > 0
    assert 0.8 < ratios["memory_gib"] < 1.25 and 0.8 < ratios["disk_gib"] < 1.25


def test_the_peak_of_a_command_is_its_own_and_not_that_of_the_process_that_starts_it(tmp_path):
    taken = b"1" * 2**29  # the peak of this process is above it from here on
    assert len(taken) == 2**29 and watch(["-c", "pass"], tmp_path)["memory_gib"] < 0.1


def test_a_command_is_watched_while_its_folder_grows_and_shrinks(tmp_path):
    code = """
import os, sys, time
os.mkdir(sys.argv[1])
for size in (10**6, 10):
    with open(f"{sys.argv[1]}/file", "wb") as file:
        file.write(bytes(size))
    time.sleep(0.5)
"""
    found = watch(["-c", code, str(tmp_path / "run")], tmp_path / "run")
    assert (
        found["disk_gib"] == pytest.approx(10**6 / 2**30, abs=1e-4)
        and found["seconds"] > 1
        and found["memory_gib"] > 0
    )
    assert folder_bytes(tmp_path / "run") == 10
    with pytest.raises(subprocess.CalledProcessError):
        watch(["-c", "import sys; sys.exit(1)"], tmp_path)


@pytest.mark.parametrize(
    ("settings", "folders", "best", "drawn"),
    [
        ({"steps": 100, "eval_every": 50, "save_every": 10, "keep": 2}, 3, 2, 2),
        ({"steps": 100, "eval_every": 0, "save_every": 0, "keep": 2}, 1, 1, 1),
        ({"steps": 100, "eval_every": 0, "save_every": Seconds(20), "keep": 5}, 3, 1, 1),
    ],
)
def test_a_run_takes_the_checkpoints_it_keeps_and_one_in_writing(settings, folders, best, drawn):
    config = TrainConfig(batch_size=32, **settings)
    assert (
        check.folder_bytes(config, SIZES, seconds=60)
        == 1000 * folders + 100 * best + 10 * drawn + 1
    )
