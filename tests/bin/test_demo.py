"""The demonstration script; only the setup of the environment is replaced, which is done here."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHORT = ["--steps", "4", "--eval-every", "2", "--workers", "0", "--threads", "1"]


@pytest.fixture
def checkout(tmp_path):
    """A folder like the top of a checkout, with this environment as its .venv."""
    (tmp_path / "bin").mkdir()
    for file in (ROOT / "bin").glob("*.py"):
        (tmp_path / "bin" / file.name).symlink_to(file)
    demo, setup = tmp_path / "bin/demo", tmp_path / "bin/setup-environment"
    demo.write_text((ROOT / "bin/demo").read_text())
    setup.write_text("#!/bin/sh\n")
    for script in (demo, setup):
        script.chmod(0o755)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    return tmp_path


def run_demo(checkout, *arguments):
    """Run the script to its end; return the finished process."""
    command = [checkout / "bin/demo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    "task", ["classification", "instance-segmentation", "panoptic-segmentation"]
)
def test_the_demonstration_ends_with_predictions_and_an_export(checkout, task):
    process = run_demo(checkout, task, *SHORT)
    assert process.returncode == 0, process.stdout[-2000:] + process.stderr[-2000:]
    assert "Done. Results:" in process.stdout
    folder = checkout / "runs/demo" / task.replace("-", "_")
    for name in (
        "run/best/model.safetensors",
        "predictions/contact_sheet.png",
        "export/config.json",
    ):
        assert (folder / name).stat().st_size > 0, name


def test_an_unknown_task_is_refused_with_the_names_of_all_tasks(checkout):
    process = run_demo(checkout, "pose")
    assert process.returncode == 2
    assert "unknown task 'pose'" in process.stderr
    assert "super-resolution" in process.stderr
