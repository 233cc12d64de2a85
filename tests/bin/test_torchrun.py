"""The real command under the real launcher, with two processes."""

import json
import re
import signal
import subprocess
import time

import pytest
from super_resolution_files import write_super_resolution_data
from torchrun_runs import ENVIRONMENT, OPTIONS, ROOT, SIZE, TORCHRUN, bytes_of, write_classification

from visionloop.datasets.synthetic.detection import write_detection
from visionloop.datasets.synthetic.panoptic import write_panoptic

WRITERS = {
    "detection": write_detection,
    "panoptic_segmentation": write_panoptic,
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache folder for decoded images of super-resolution, which both processes fill."""
    monkeypatch.setitem(ENVIRONMENT, "XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module", params=["classification", "super_resolution", *WRITERS])
def images(request, tmp_path_factory):
    """<task>/: a data folder named after its task."""
    folder = tmp_path_factory.mktemp("images") / request.param
    folder.mkdir()
    if request.param in WRITERS:
        WRITERS[request.param](folder, 0, images={"train": 12, "val": 4})
        return folder
    if request.param == "super_resolution":
        return write_super_resolution_data(folder, images=12, size_hw=(40, 48))
    return write_classification(folder)


def command(images, output, *options):
    script = ROOT / "bin" / f"{images.name}.py"
    launch = [
        TORCHRUN,
        "--standalone",
        "--nproc-per-node",
        "2",
        "--shutdown-timeout",
        "60",
        script,
        "train",
    ]
    return [
        *map(str, launch),
        "--data",
        str(images),
        "--output",
        str(output),
        *SIZE[images.name],
        *OPTIONS,
        *options,
    ]


def test_two_processes_under_torchrun_stop_at_sigterm_resume_and_end_with_the_same_bytes(
    images, tmp_path
):
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    subprocess.run(command(images, straight), env=ENVIRONMENT, check=True, timeout=300)
    assert json.loads((straight / "status.json").read_text())["state"] == "finished"

    launcher = subprocess.Popen(command(images, stopped), env=ENVIRONMENT)
    deadline = time.monotonic() + 200
    while not (stopped / "checkpoints" / "step_00000002").exists():
        assert launcher.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    launcher.send_signal(signal.SIGTERM)
    assert launcher.wait(100) != 0  # torchrun turns every exit into 1
    state = json.loads((stopped / "status.json").read_text())["state"]
    assert state in ("stopped", "finished")  # it may have been at its end
    subprocess.run(command(images, stopped), env=ENVIRONMENT, check=True, timeout=300)
    assert bytes_of(stopped) == bytes_of(straight)


@pytest.mark.parametrize("images", ["classification"], indirect=True)
def test_a_user_error_under_torchrun_is_one_line_and_leaves_nothing(images, tmp_path):
    done = subprocess.run(
        command(images, tmp_path / "run", "--micro-batch", "0"),
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode != 0
    # torchrun ends the first process where the second has seen the mistake sooner
    assert re.search(
        r"^error( \(process 1\))?: --micro-batch: expected at least 1, got 0$",
        done.stderr,
        re.MULTILINE,
    )
    assert not (tmp_path / "run").exists()
