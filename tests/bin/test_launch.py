"""visionloop-launch: exit codes of a training with two processes, as a container sees them."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torchrun_runs import (
    ENVIRONMENT,
    LONGEST,
    OPTIONS,
    ROOT,
    SIZE,
    left_behind,
    write_classification,
)

from visionloop.bin.launches.outcome import outcome_of_start, outcome_of_status
from visionloop.engine.testing.short_runs import free_port


def status(state, code=None):
    return json.dumps({"state": state, "error": code and {"code": code}}).encode()


@pytest.mark.parametrize(
    ("content", "state", "code"),
    [
        (status("finished"), "finished", 0),
        (status("stopped"), "stopped", 75),
        (status("running"), "running", 75),
        (status("failed", "lost_process"), "failed lost_process", 75),
        (status("failed", "out_of_memory"), "failed out_of_memory", 75),
        (status("failed", "bad_layout"), "failed bad_layout", 2),
        (status("failed", "no_memory"), "failed no_memory", 2),
        (status("failed", "defect"), "failed defect", 1),
        (status("failed"), "unreadable", 1),
        (status("paused"), "unreadable", 1),
        (b'{"state": "failed", "error": {"code": 3}}', "unreadable", 1),
        (b'{"state": "failed", "error": "none"}', "unreadable", 1),
        (b'{"state": "stop', "unreadable", 1),
        (b"\xff", "unreadable", 1),
        (b"[]", "unreadable", 1),
        (None, "unreadable", 1),
    ],
)
def test_a_status_stands_for_one_exit_code(content, state, code):
    outcome = outcome_of_status(content)
    assert (outcome.state, outcome.code) == (state, code)


@pytest.mark.parametrize("before", [None, status("stopped"), status("failed", "bad_input")])
def test_the_status_of_an_earlier_start_does_not_count(before):
    for code, expected in ((1, 1), (-9, 1), (2, 2), (75, 75), (0, 0)):
        assert outcome_of_start(before, before, code, was_stopped=False).code == expected
    assert outcome_of_start(before, before, -15, was_stopped=True).code == 75
    written = outcome_of_start(before, status("failed", "defect"), 2, was_stopped=True)
    assert written.code == 1


def test_a_node_that_ends_well_while_the_run_is_not_finished_starts_again():
    ends = {"running": 75, "finished": 0, "stopped": 0}
    for state, expected in ends.items():
        assert outcome_of_start(None, status(state), 0, was_stopped=False).code == expected
    # --dry-run and --help write no status
    running = status("running")
    assert outcome_of_start(running, running, 0, was_stopped=False).code == 0


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_node_whose_other_node_does_not_come_ends_with_75(rank):
    words = ["-P", "-m", "visionloop.bin.launches.torchrun", "--nnodes", "2", "--node-rank", rank]
    words += ["--master-addr", "127.0.0.1", "--master-port", free_port()]
    words += ["--rdzv-conf", "timeout=2", "nothing.py"]
    done = run_module(words)
    assert done.returncode == 75, done.stderr
    assert "another node did not come or is gone" in done.stderr


@pytest.mark.slow
def test_a_first_node_whose_port_is_in_use_ends_with_1():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        words = ["-P", "-m", "visionloop.bin.launches.torchrun", "--nnodes", "2"]
        words += ["--node-rank", 0, "--master-addr", "127.0.0.1", "--master-port", port, "no.py"]
        done = run_module(words)
    assert done.returncode == 1 and "EADDRINUSE" in done.stderr


def run_module(words):
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=LONGEST)


def test_the_state_of_a_run_is_printed_and_is_the_exit_code(tmp_path):
    (tmp_path / "status.json").write_bytes(status("failed", "lost_process"))
    command = [sys.executable, ROOT / "bin/launch.py", "state", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (75, "failed lost_process\n")


def test_a_command_that_only_starts_trainings_imports_no_torch():
    code = "import sys, visionloop.bin.launch as launch, visionloop.bin.launches.command, "
    code += "visionloop.bin.launches.supervise; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_classification(tmp_path_factory.mktemp("data") / "images")


class Start:
    """`visionloop-launch run` with two processes."""

    def __init__(self, images, run, *options, processes=2):
        self.run, self.log = run, run.with_name(f"{run.name}.log")
        command = [sys.executable, ROOT / "bin/launch.py", "run", "--processes", str(processes)]
        command += ["classification", run, "--data", images, *SIZE["classification"], *OPTIONS]
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(
                [*map(str, command), *options], env=ENVIRONMENT, stdout=log, stderr=log
            )

    def wait_for_checkpoint(self):
        deadline = time.monotonic() + LONGEST
        while not (self.run / "checkpoints/step_00000002").exists():
            assert self.process.poll() is None and time.monotonic() < deadline, self.said()
            time.sleep(0.02)

    def end(self):
        code = self.process.wait(LONGEST)
        assert left_behind(str(self.run)) == []
        return code

    def said(self):
        return self.log.read_text()

    def state(self):
        return json.loads((self.run / "status.json").read_text())["state"]

    def process_of(self, rank):
        """Process id of a rank; its data workers have the same command and larger ids."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has just ended
                variables = (folder / "environ").read_bytes().split(b"\0")
                command = (folder / "cmdline").read_bytes().split(b"\0")
                if f"RANK={rank}".encode() in variables and bytes(self.run) in command:
                    found.append(int(folder.name))
        return min(found)


@pytest.mark.slow
def test_two_processes_that_are_stopped_end_with_75_and_the_same_command_with_0(images, tmp_path):
    run = tmp_path / "a $(run) 'of' two"
    start = Start(images, run, "--steps", "200")
    start.wait_for_checkpoint()
    start.process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    start.process.send_signal(signal.SIGTERM)  # a second one is no reason to leave the checkpoint
    assert start.end() == 75, start.said()
    assert start.state() == "stopped"
    assert start.said().count("asked to stop") == 1 and "stopped (exit code 75)" in start.said()

    stopped_at = json.loads((run / "status.json").read_text())["step"]
    again = Start(images, run, "--steps", "200")
    assert again.end() == 0, again.said()
    assert f"resuming after step {stopped_at}" in again.said() and again.state() == "finished"


@pytest.mark.slow
def test_a_killed_rank_ends_with_75_and_the_same_command_with_0(images, tmp_path):
    start = Start(images, tmp_path / "run", "--steps", "200")
    start.wait_for_checkpoint()
    os.kill(start.process_of(1), signal.SIGKILL)
    assert start.end() == 75, start.said()
    assert Start(images, tmp_path / "run", "--steps", "200").end() == 0


@pytest.mark.slow
def test_a_killed_first_rank_ends_with_75_though_it_could_write_no_status(images, tmp_path):
    start = Start(images, tmp_path / "run", "--steps", "200")
    start.wait_for_checkpoint()
    os.kill(start.process_of(0), signal.SIGKILL)
    assert start.end() == 75, start.said()
    assert start.state() == "running"


@pytest.mark.slow
def test_a_mistake_in_the_input_of_two_processes_ends_with_2(images, tmp_path):
    missing = Start(tmp_path / "no images", tmp_path / "missing")
    assert missing.end() == 2, missing.said()
    # found before there is a folder: no status.json tells of it
    wrong = Start(images, tmp_path / "wrong", "--micro-batch", "0")
    assert wrong.end() == 2, wrong.said()
    assert not (tmp_path / "wrong").exists()
    assert "this start wrote no status (exit code 2)" in wrong.said()


@pytest.mark.slow
def test_one_process_needs_no_torchrun_and_ends_with_the_same_codes(images, tmp_path):
    start = Start(images, tmp_path / "run", "--steps", "2000", processes=1)
    start.wait_for_checkpoint()
    start.process.send_signal(signal.SIGINT)
    assert start.end() == 75, start.said()
    other_size = Start(images, tmp_path / "run", "--steps", "3", processes=1)
    assert other_size.end() == 2, other_size.said()
