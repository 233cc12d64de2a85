"""The demonstration, as its script stands, but for the set-up, which this environment has behind it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path):
    """A folder like a checkout's top, with this environment as its .venv and nothing left to set up."""
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


@pytest.mark.slow
def test_the_demonstration_ends_with_answers_and_an_export(checkout):
    said = demonstrate(
        checkout,
        "classification",
        "--steps",
        "4",
        "--eval-every",
        "2",
        "--workers",
        "0",
        "--threads",
        "1",
    )
    assert "Done. Where to look:" in said
    run = checkout / "runs/demo/classification"
    for made in (
        "run/best/model.safetensors",
        "predictions/contact_sheet.png",
        "export/config.json",
    ):
        assert (run / made).stat().st_size > 0, made


def test_an_unknown_task_is_refused_with_those_there_are(checkout):
    done = subprocess.run([checkout / "bin/demo", "pose"], capture_output=True, text=True)
    assert (
        done.returncode == 2
        and "no task 'pose'" in done.stderr
        and "super-resolution" in done.stderr
    )


def demonstrate(checkout, *words):
    done = subprocess.run(
        [checkout / "bin/demo", *words], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout
