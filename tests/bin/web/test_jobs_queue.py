"""The queue with small commands in the place of training: each job is a real detached process."""

import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from studio_jobs import (
    COUNTED,
    LONGEST,
    STOPPABLE,
    TRAINER,
    description,
    follow,
    new_queue,
    wait_for_text,
)

from visionloop.bin.web.jobs.outcome import MOST_RESTARTS
from visionloop.bin.web.jobs.processes import is_alive, kill_all, lock_holder, read_stat
from visionloop.bin.web.jobs.queue import ENDED
from visionloop.bin.web.jobs.spec import JobKind, JobState
from visionloop.bin.web.launchers.launch import KubernetesOptions, Launch, TorchrunOptions
from visionloop.bin.web.problems import Problem

FAILED = "import sys; print('error: --lr: wrong', file=sys.stderr); sys.exit(2)"
QUEUED, RUNNING, STOPPED = JobState.QUEUED, JobState.RUNNING, JobState.STOPPED


@pytest.fixture
def queue(tmp_path):
    queue = new_queue(tmp_path)
    yield queue
    for job in queue.store.jobs():
        if holder := queue.folder_of(job.id).holder():
            kill_all(holder.pid)
        if job.run and (trainer := lock_holder(job.run / ".lock")):
            kill_all(trainer.pid, [trainer])


@pytest.fixture
def create(queue, tmp_path):
    """create(name, code, **fields of JobDescription)."""
    return lambda name, code, **changes: queue.create(description(tmp_path, name, code, **changes))


@pytest.mark.parametrize(
    ("code", "state", "exit_code"),
    [
        ("", JobState.FINISHED, 0),
        (FAILED, JobState.FAILED, 2),
        ("1 / 0", JobState.FAILED, 1),
        ("import os; os.kill(os.getpid(), 9)", JobState.LOST, -9),
    ],
)
def test_the_state_of_a_job_follows_its_exit(queue, create, code, state, exit_code):
    create("a", code)
    job = follow(queue, "a", *ENDED)
    assert (job.state, job.exit_code) == (state, exit_code)
    assert (job.error is None) == (exit_code == 0)


def test_the_error_of_a_job_is_the_line_that_its_command_has_printed(queue, create):
    create("a", FAILED)
    assert follow(queue, "a", *ENDED).error["message"] == "--lr: wrong"


def test_the_error_of_a_run_is_that_of_its_status_also_under_torchrun(queue, create):
    error = {"code": "bad_layout", "message": "no val", "file": None, "field": None, "hint": None}
    create("a", f"{TRAINER}status('failed', {error!r})\nsys.exit(1)")
    assert follow(queue, "a", *ENDED).error == error


def test_an_error_of_an_earlier_start_is_not_the_error_of_this_one(queue, create):
    create("a", f"{COUNTED}import sys\nif len(open('starts').read()) > 1: 1 / 0\n{FAILED}")
    assert follow(queue, "a", *ENDED).error["message"] == "--lr: wrong"
    queue.resume("a")
    assert "ZeroDivisionError" in follow(queue, "a", *ENDED).error["message"]


def test_a_program_that_is_not_there_fails_with_its_name(queue, create):
    create("a", "", launch=Launch(("no-such-program",)))
    job = follow(queue, "a", *ENDED)
    assert job.state is JobState.FAILED
    assert "no-such-program" in job.error["message"]


def test_a_stopped_job_goes_on_with_the_same_command(queue, create):
    create("a", STOPPABLE)
    wait_for_text(queue, "a", "ready")
    queue.stop("a")
    assert follow(queue, "a", *ENDED).state is STOPPED
    queue.resume("a")
    assert follow(queue, "a", RUNNING).attempt == 2


def test_stopped_is_shown_only_after_the_last_process_has_ended(queue, create, tmp_path):
    """A worker outlives the command, in a session of its own."""
    worker = f"import time; time.sleep(2); open({str(tmp_path / 'ended')!r}, 'w').close()"
    start = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {worker!r}], "
    create("a", f"{start}start_new_session=True)\n{STOPPABLE}")
    wait_for_text(queue, "a", "ready")
    queue.stop("a")
    assert follow(queue, "a", *ENDED).state is STOPPED
    assert (tmp_path / "ended").exists()


def test_a_job_is_asked_to_stop_once_and_its_workers_are_not_asked(queue, create):
    """A second SIGTERM makes torchrun leave its processes behind."""
    listen = "import signal, sys, time\nname = sys.argv[1] if sys.argv[1:] else 'command'\n"
    listen += "signal.signal(signal.SIGTERM, lambda *_: print(name, 'asked', flush=True))\n"
    listen += "print(name, 'ready', flush=True)\n"
    sleep = "while True: time.sleep(1)\n"
    worker = f"[sys.executable, '-c', {listen + sleep!r}, 'worker']"
    create("a", f"import subprocess, sys\nsubprocess.Popen({worker})\n{listen}{sleep}")
    wait_for_text(queue, "a", "ready", 2)
    queue.stop("a")
    wait_for_text(queue, "a", "asked")
    # as after a crash of the server between the signal and the note of it
    queue.store.update("a", state=RUNNING)
    queue.tick()
    time.sleep(0.5)
    lines = queue.folder_of("a").log_lines(10)
    assert sorted(lines) == ["command asked", "command ready", "worker ready"]
    queue.kill("a")
    assert follow(queue, "a", *ENDED).state is STOPPED


def test_a_stop_before_the_process_is_there_is_not_lost(queue, create):
    create("a", STOPPABLE)
    queue.tick()
    queue.stop("a")
    assert follow(queue, "a", *ENDED).state is STOPPED


def test_a_waiting_job_is_stopped_without_a_start(queue, create, tmp_path):
    create("a", COUNTED)
    queue.stop("a")
    queue.tick()
    assert queue.get("a").state is STOPPED
    assert not (queue.folder_of("a").path / "starts").exists()


def test_jobs_run_one_after_the_other_in_the_order_of_the_user(queue, create, tmp_path):
    order = tmp_path / "order"
    for name in "abcd":
        create(name, f"open({str(order)!r}, 'a').write({name!r})", start=False)
    queue.move("d", "a")
    queue.move("d", "d")
    queue.move("b", None)
    for name in "abcd":
        queue.store.update(name, state=QUEUED)
    for name in "abcd":
        follow(queue, name, *ENDED)
    assert order.read_text() == "dacb"


def test_a_job_whose_device_is_busy_keeps_back_only_jobs_for_that_device(queue, create):
    create("a", STOPPABLE)
    follow(queue, "a", RUNNING)
    create("b", "")
    create("c", "", launcher=KubernetesOptions(kind="kubernetes"))
    follow(queue, "c", *ENDED)
    assert queue.get("b").state is QUEUED
    assert queue.devices_in_use() == {"cpu": "a"}


def test_a_job_for_two_gpus_is_not_overtaken_for_ever(queue, create):
    def on(*devices):
        return TorchrunOptions(kind="torchrun", devices=list(devices))

    create("a", STOPPABLE, launcher=on(0))
    follow(queue, "a", RUNNING)
    create("b", "", launcher=on(0, 1))
    create("c", "", launcher=on(1))
    for _ in range(5):
        queue.tick()
    assert (queue.get("b").state, queue.get("c").state) == (QUEUED, QUEUED)


def test_a_job_paused_for_another_goes_on_after_it(queue, create, tmp_path):
    order = tmp_path / "order"
    create("a", f"{COUNTED}if len(open('starts').read()) < 2:\n exec({STOPPABLE!r})")
    wait_for_text(queue, "a", "ready")
    for name in "bc":
        create(name, f"open({str(order)!r}, 'a').write({name!r})")
    queue.pause("a", "c")
    follow(queue, "c", *ENDED)
    assert follow(queue, "a", *ENDED).state is JobState.FINISHED
    assert queue.get("a").attempt == 2
    follow(queue, "b", *ENDED)
    assert order.read_text() == "cb"


def test_a_paused_job_waits_until_it_is_resumed(queue, create):
    create("a", STOPPABLE)
    wait_for_text(queue, "a", "ready")
    queue.pause("a")
    follow(queue, "a", JobState.PAUSED)
    queue.tick()
    assert queue.get("a").state is JobState.PAUSED
    queue.resume("a")
    follow(queue, "a", RUNNING)


def test_a_killed_job_leaves_no_process(queue, create, tmp_path):
    """Workers that ignore SIGTERM, in sessions of their own, and one whose parent has ended."""
    pids = tmp_path / "pids"
    deaf = "import signal, time, os\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    write = f"open({str(pids)!r}, 'a').write(f'{{os.getpid()}}\\n')\n"
    worker = f"{deaf}{write}time.sleep(600)"
    orphan = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {worker!r}])"
    start = "subprocess.Popen([sys.executable, '-c', {}], start_new_session=True)\n"
    code = f"import subprocess, sys\n{start.format(repr(worker))}{start.format(repr(orphan))}"
    create("a", f"{code}{worker}")
    for _ in range(50 * LONGEST):
        queue.tick()
        if pids.exists() and len(pids.read_text().split()) == 3:
            break
        time.sleep(0.02)
    alive = [int(pid) for pid in pids.read_text().split()]
    assert len(alive) == 3
    queue.kill("a")
    assert follow(queue, "a", *ENDED).state is STOPPED
    assert [pid for pid in alive if read_stat(pid)] == []


def test_a_job_that_asks_for_it_is_started_again_a_few_times(queue, create):
    error = {"code": "lost_process", "message": "gone", "file": None, "field": None, "hint": None}
    create("a", f"{COUNTED}{TRAINER}status('failed', {error!r})\nsys.exit(75)")
    job = follow(queue, "a", *ENDED)
    assert (job.state, job.error["code"]) == (JobState.FAILED, "lost_process")
    assert (job.attempt, job.restarts) == (1 + MOST_RESTARTS, MOST_RESTARTS)
    starts = (queue.folder_of("a").path / "starts").read_text()
    assert len(starts) == 1 + MOST_RESTARTS


def test_a_run_folder_in_use_is_refused_with_its_name(queue, create, tmp_path):
    create("a", f"{TRAINER}{STOPPABLE}")
    wait_for_text(queue, "a", "ready")
    other = description(tmp_path, "b", COUNTED, launcher=KubernetesOptions(kind="kubernetes"))
    queue.create(replace(other, spec=replace(other.spec, run=tmp_path / "runs" / "a")))
    job = follow(queue, "b", *ENDED)
    assert (job.state, job.error["code"]) == (JobState.FAILED, "locked")
    assert str(tmp_path / "runs" / "a") in job.error["message"]
    assert not (queue.folder_of("b").path / "starts").exists()


def lose_runner(queue, name):
    """Kill the runner of a job: the job goes on without it."""
    os.kill(queue.folder_of(name).holder().pid, 9)
    for _ in range(20):
        queue.tick()
        time.sleep(0.02)
    assert queue.get(name).state is RUNNING


def test_a_training_whose_runner_was_killed_is_followed_and_stopped(queue, create):
    create("a", f"{TRAINER}{STOPPABLE}")
    wait_for_text(queue, "a", "ready")
    lose_runner(queue, "a")
    queue.stop("a")
    assert follow(queue, "a", *ENDED).state is STOPPED


def test_a_command_whose_runner_was_killed_is_followed_before_it_locks_its_run(queue, create):
    create("a", STOPPABLE)
    wait_for_text(queue, "a", "ready")
    lose_runner(queue, "a")
    queue.kill("a")
    assert follow(queue, "a", *ENDED).state is STOPPED
    assert not is_alive(queue.folder_of("a").command())


def test_a_job_whose_folder_is_deleted_follows_its_run(queue, create, tmp_path):
    create("a", f"{TRAINER}{STOPPABLE}")
    create("b", "")
    wait_for_text(queue, "a", "ready")
    for name in "ab":
        shutil.rmtree(queue.folder_of(name).path)
    for _ in range(5):
        queue.tick()
    assert queue.get("a").state is RUNNING
    queue.stop("a")
    assert follow(queue, "a", *ENDED).state is STOPPED
    job = follow(queue, "b", *ENDED)
    assert (job.state, job.error["code"]) == (JobState.FAILED, "lost")
    assert str(queue.path / "b") in job.error["message"]


def test_a_job_that_is_stopping_is_written_once(queue, create):
    """Each write reaches the disk, and tells all pages to ask again."""
    deaf = (
        "import signal, time\nsignal.signal(signal.SIGTERM, lambda *_: print('no', flush=True))\n"
    )
    create("a", f"{deaf}print('ready', flush=True)\nwhile True: time.sleep(1)")
    wait_for_text(queue, "a", "ready")
    queue.stop("a")
    wait_for_text(queue, "a", "no")
    revision = queue.store.revision
    for _ in range(5):
        queue.tick()
    assert (queue.get("a").state, queue.store.revision) == (JobState.STOPPING, revision)
    queue.kill("a")
    follow(queue, "a", *ENDED)


def test_a_job_that_ends_without_a_word_is_lost_and_can_be_resumed(queue, create):
    create("a", f"{COUNTED}print('ready', flush=True)\nimport time; time.sleep(600)")
    wait_for_text(queue, "a", "ready")
    holder = queue.folder_of("a").holder()
    kill_all(holder.pid, [holder])
    job = follow(queue, "a", *ENDED)
    assert (job.state, job.error["code"]) == (JobState.LOST, "lost")
    queue.resume("a")
    assert follow(queue, "a", RUNNING).attempt == 2


def test_the_result_of_a_check_is_what_it_prints_and_its_log_the_rest(queue, create, tmp_path):
    code = "import sys; print('{\"errors\": []}'); print('careful', file=sys.stderr); sys.exit(2)"
    one = description(tmp_path, "a", code)
    queue.create(replace(one, spec=replace(one.spec, kind=JobKind.CHECK, run=None)))
    assert follow(queue, "a", *ENDED).state is JobState.FINISHED
    assert queue.folder_of("a").result.read_text() == '{"errors": []}\n'
    assert queue.folder_of("a").log_lines(10) == ["careful"]


def test_checks_run_beside_a_training_one_at_a_time(queue, create, tmp_path):
    create("a", STOPPABLE)
    for name in "bc":
        one = description(tmp_path, name, STOPPABLE)
        queue.create(replace(one, spec=replace(one.spec, kind=JobKind.CHECK, run=None)))
    follow(queue, "b", RUNNING)
    follow(queue, "a", RUNNING)
    queue.tick()
    assert queue.get("c").state is QUEUED


def test_calls_that_make_no_sense_are_refused(queue, create):
    create("a", STOPPABLE)
    follow(queue, "a", RUNNING)
    for call in (queue.resume, queue.remove, lambda name: queue.move(name, None)):
        with pytest.raises(Problem, match="the job is running") as refused:
            call("a")
        assert refused.value.status == 409
    create("b", "", start=False)
    create("c", "", start=False)
    queue.stop("b")
    with pytest.raises(Problem, match="the job is stopped"):
        queue.pause("b", "c")
    assert queue.get("c").state is JobState.PAUSED
    with pytest.raises(Problem) as unknown:
        queue.stop("d")
    assert unknown.value.status == 404
    queue.kill("a")
    follow(queue, "a", *ENDED)
    with pytest.raises(Problem, match="the job is stopped"):
        queue.stop("a")


def test_a_removed_job_leaves_the_folder_of_its_run(queue, create, tmp_path):
    create("a", "open('../../runs/a/kept', 'w')")
    (tmp_path / "runs" / "a").mkdir(parents=True)
    follow(queue, "a", *ENDED)
    # of a server that was killed while it removed another one
    (queue.path / ".a.removed" / "rest").mkdir(parents=True)
    queue.remove("a")
    assert queue.store.jobs() == []
    assert list(queue.path.iterdir()) == []
    assert (tmp_path / "runs" / "a" / "kept").exists()


def test_no_file_of_the_server_is_open_in_a_job(queue, create):
    code = "import os\nfor name in os.listdir('/proc/self/fd'):\n"
    code += "  if name != '3': print(os.readlink(f'/proc/self/fd/{name}'))"  # 3: the listing
    with socket.socket() as listener:
        os.set_inheritable(listener.fileno(), True)
        create("a", code)
        follow(queue, "a", *ENDED)
    log = str(queue.folder_of("a").log)
    assert queue.folder_of("a").log_lines(10) == ["/dev/null", log, log]


def test_a_job_has_a_session_without_terminal_and_the_variables_of_its_launch(queue, create):
    code = (
        "import os, sys; print(os.environ['COLOR'], os.getsid(0) == os.getppid(), sys.stdin.read())"
    )
    create("a", "", launch=Launch((sys.executable, "-c", code), environment={"COLOR": "red"}))
    follow(queue, "a", *ENDED)
    assert queue.folder_of("a").log_lines(1) == ["red True "]


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """cluster(script) -> the Launch of a job that a process of the test runs, not the queue's."""
    monkeypatch.setattr("visionloop.bin.web.jobs.cluster.PROBE_SECONDS", 0.1)
    folder = tmp_path / "cluster"
    folder.mkdir()
    job, work = folder / "job", tmp_path / "jobs" / "a"
    daemon = f"import os, time\nwhile not os.path.exists({str(job)!r}): time.sleep(0.02)\n"
    daemon += f"time.sleep(0.1); os.chdir({str(work)!r}); exec(open({str(job)!r}).read())\n"
    process = subprocess.Popen([sys.executable, "-c", f"{daemon}os.remove({str(job)!r})"])
    yield lambda script: Launch(
        (sys.executable, "-c", f"open({str(job)!r}, 'w').write({script!r})"),
        submits=True,
        stop=("touch", str(folder / "stop")),
        probe=("find", str(folder), "-name", "job"),
    )
    process.kill()
    process.wait()


def test_a_job_of_a_cluster_ends_as_its_run_does(queue, create, cluster):
    create("a", "", launch=cluster(f"{TRAINER}time.sleep(1); status('finished')"))
    follow(queue, "a", RUNNING)
    assert queue.get("a").attempt == 1
    assert follow(queue, "a", *ENDED).state is JobState.FINISHED


def test_a_job_of_a_cluster_that_disappears_is_lost(queue, create, cluster):
    create("a", "", launch=cluster(f"{TRAINER}status('running')"))
    assert follow(queue, "a", *ENDED).state is JobState.LOST


def test_a_new_job_is_not_lost_because_a_removed_one_with_its_id_was(queue, create, monkeypatch):
    monkeypatch.setattr("visionloop.bin.web.jobs.cluster.PROBE_SECONDS", 0.1)
    create("a", "", launch=Launch(("true",), submits=True, probe=("true",)))
    assert follow(queue, "a", *ENDED).state is JobState.LOST
    queue.remove("a")
    create("a", "", launch=Launch(("true",), submits=True, probe=("echo", "it waits")))
    follow(queue, "a", RUNNING, JobState.LOST)
    for _ in range(20):
        queue.tick()
        time.sleep(0.02)
    assert queue.get("a").state is RUNNING


def test_a_job_of_a_cluster_is_stopped_by_its_own_command(queue, create, cluster, tmp_path):
    wait = f"while not os.path.exists({str(tmp_path / 'cluster' / 'stop')!r}): time.sleep(0.05)\n"
    create("a", "", launch=cluster(f"{TRAINER}status('running')\n{wait}status('stopped')"))
    follow(queue, "a", RUNNING)
    queue.stop("a")
    assert follow(queue, "a", *ENDED).state is STOPPED
