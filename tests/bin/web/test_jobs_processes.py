"""Processes of jobs: locks, signals, and pids that are used again."""

import fcntl
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from studio_jobs import LONGEST

from visionloop.bin.web.jobs.devices import parse_gpus
from visionloop.bin.web.jobs.processes import (
    Process,
    descendants,
    is_alive,
    kill_all,
    lock_holder,
    process_of,
    send_signal,
    torchrun_of,
)

SLEEP = "import time; time.sleep(600)"
LOCK = "import fcntl, sys, time; file = open(sys.argv[1], 'w'); fcntl.lockf(file, fcntl.LOCK_EX)"


@pytest.fixture
def start():
    """start(code, *words) -> a Python process that has said that it is ready."""
    processes = []

    def run(code, *words):
        code = f"print('ready', flush=True); {SLEEP}" if code is None else code
        process = subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE)
        processes.append(process)
        process.stdout.readline()
        return process

    yield run
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_pid_that_is_used_again_is_not_signalled(start):
    process = start(None)
    now = process_of(process.pid)
    earlier = replace(now, start_ticks=now.start_ticks - 1)
    assert not send_signal(earlier, signal.SIGKILL)
    assert not is_alive(earlier)
    assert process.poll() is None
    assert send_signal(now, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not send_signal(now, signal.SIGTERM)


@pytest.mark.parametrize("pid", [0, 1, -1])
def test_no_signal_goes_to_init_or_to_a_group(pid):
    assert not send_signal(Process(pid, None), 0)


def test_the_holder_of_a_lock_is_seen_and_not_disturbed(start, tmp_path):
    path = tmp_path / ".lock"
    assert lock_holder(path) is None
    path.touch()
    assert lock_holder(path) is None
    process = start(f"{LOCK}; print('ready', flush=True); {SLEEP}", str(path))
    assert lock_holder(path) == process_of(process.pid)
    process.kill()
    process.wait()
    assert lock_holder(path) is None
    with open(path, "w") as file:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_all_descendants_are_killed_and_nobody_else(start):
    child = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', {!r}]); {}"
    code = child.format(child.format(f"print('ready', flush=True); {SLEEP}", SLEEP), SLEEP)
    other, root = start(None), start(code)
    below = descendants(root.pid)
    assert len(below) == 2
    kill_all(root.pid)
    for _ in range(100 * LONGEST):
        if not any(map(is_alive, below)):
            break
        time.sleep(0.01)
    assert not any(map(is_alive, below))
    assert (root.poll(), other.poll()) == (None, None)


@pytest.mark.parametrize("pid", [0, 1])
def test_the_ancestors_of_all_processes_have_no_descendants(pid):
    """0 stands for a process of another machine or container."""
    assert descendants(pid) == []


def test_a_run_of_another_container_is_not_killed_with_all_that_runs_here(start, tmp_path):
    """The test is the container: the process that looks at it is in a namespace of its own."""
    alone = ("unshare", "--map-root-user", "--pid", "--fork", "--mount-proc")
    if subprocess.run((*alone, "true"), capture_output=True, check=False).returncode:
        pytest.skip("no namespaces of processes here")
    lock = tmp_path / ".lock"
    start(f"{LOCK}; print('ready', flush=True); {SLEEP}", str(lock))
    code = "import subprocess, sys; from pathlib import Path\n"
    code += "from visionloop.bin.web.jobs.adoption import living_job\n"
    code += "from visionloop.bin.web.jobs.processes import kill_all, lock_holder\n"
    code += "from visionloop.bin.web.jobs.queue import JobQueue\n"
    code += "from visionloop.bin.web.jobs.store import JobStore\n"
    code += "run = Path(sys.argv[1])\n"
    code += "other = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    code += "holder = lock_holder(run / '.lock')\n"
    code += "kill_all(holder.pid, [holder])\n"
    code += "print(holder.pid, other.poll())\n"
    code += "living_job(run, JobQueue(JobStore(run / 'studio.db'), run / 'jobs'), None)"
    command = (*alone, sys.executable, "-P", "-c", code, str(tmp_path))
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST, check=False)
    assert done.stdout == "0 None\n", done.stderr
    assert "Problem: " in done.stderr and "another machine or container" in done.stderr


def test_the_torchrun_of_a_process_is_its_parent_and_no_other_program(start, tmp_path):
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEP!r}]); "
    code += f"print('ready', flush=True); {SLEEP}"
    (tmp_path / "torchrun").write_text(code)
    plain = start(code)
    process = subprocess.Popen([sys.executable, str(tmp_path / "torchrun")], stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        (worker,) = descendants(process.pid)
        assert torchrun_of(worker) == process_of(process.pid)
        (child,) = descendants(plain.pid)
        assert torchrun_of(child) is None
    finally:
        kill_all(process.pid)
        kill_all(plain.pid)
        process.kill()
        process.wait()
        process.stdout.close()


def test_gpus_are_read_as_nvidia_smi_lists_them():
    listed = parse_gpus(
        "0, NVIDIA H200, 143771\n3, A card, with a comma, 81559\nNo devices found\n"
    )
    assert [(gpu.name, gpu.label, gpu.memory_gib) for gpu in listed] == [
        ("gpu0", "NVIDIA H200", 140.4),
        ("gpu3", "A card, with a comma", 79.6),
    ]
