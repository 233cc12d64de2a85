"""train.sbatch: the requests to SLURM after each possible end of a run.

SLURM's programs are stand-ins.
"""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess

import pytest
from slurm_programs import SCRIPT, Job
from torchrun_runs import LONGEST, OPTIONS, SIZE, left_behind, write_classification

ENDED_BY_SLURM = ("JobState=CANCELLED Reason=None", "JobState=COMPLETING Reason=None")


def status(state, code=None):
    return json.dumps(
        {
            "schema": 1,
            "state": state,
            "step": 3,
            "error": code and {"code": code, "message": "in one line"},
        }
    )


@pytest.fixture
def job(tmp_path):
    return Job(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        status("stopped"),
        status("failed", "lost_process"),
        status("failed", "out_of_memory"),
        status("running"),
    ],
)
def test_a_run_that_the_same_command_resumes_is_queued_again(job, text):
    code, requeues, output = job.outcome(text=text)
    assert (code, requeues) == (75, 1), output
    assert "queued again, restart 1 of at most 20" in output


@pytest.mark.parametrize(
    ("cores", "is_warned"),
    [
        ({"SLURM_CPUS_PER_TASK": "31"}, True),
        ({"SLURM_CPUS_ON_NODE": "1"}, True),
        ({"SLURM_CPUS_PER_TASK": "32", "SLURM_CPUS_ON_NODE": "1"}, False),
        ({}, False),
    ],
)
def test_too_few_cores_for_eight_gpus_are_warned_of(job, cores, is_warned):
    _, _, output = job.outcome(text=status("stopped"), **cores)
    assert ("ask for --cpus-per-task 64" in output) == is_warned


@pytest.mark.parametrize(
    ("error", "expected"),
    [("bad_input", 2), ("nonfinite_steps", 2), ("unreadable_sample", 2), ("defect", 1)],
)
def test_a_run_that_failed_is_not_queued_again_and_ends_with_the_code_of_its_error(
    job, error, expected
):
    code, requeues, output = job.outcome(text=status("failed", error), code=7)
    assert (code, requeues) == (expected, 0)
    assert f"not queued again (failed {error}, exit code {expected})" in output


@pytest.mark.parametrize("code", [0, 1])
def test_a_finished_run_is_a_finished_job(job, code):
    assert job.outcome(text=status("finished"), code=code)[:2] == (0, 0)


def test_a_run_that_was_finished_before_is_a_finished_job(job):
    job.outcome(text=status("finished"), code=0)
    assert job.outcome(text=None, code=0)[:2] == (0, 0)


@pytest.mark.parametrize(
    "text", ["", '{"state": "stop', "[]", '{"step": 3}', '{"state": "failed", "error": "none"}']
)
def test_an_unreadable_status_is_not_queued_again(job, text):
    code, requeues, output = job.outcome(text=text)
    assert (code, requeues) == (1, 0)
    assert "not queued again (unreadable, exit code 1)" in output and "Traceback" not in output


def test_a_start_that_wrote_no_status_is_not_queued_again(job):
    code, requeues, output = job.outcome(text=None)
    assert (code, requeues) == (1, 0)
    assert "not queued again (this start wrote no status" in output


def test_the_status_of_an_earlier_start_does_not_count_for_this_one(job):
    assert job.outcome(text=status("stopped"))[:2] == (75, 1)
    code, requeues, output = job.outcome(text=None)
    assert (code, requeues) == (1, 1), "queued again for what the start before had written"
    assert "this start wrote no status" in output


def test_term_reaches_torchrun_on_each_node_once_and_the_script_waits_for_the_checkpoint(job):
    script = job.start(text=status("stopped"), waits=True)
    job.wait_for(lambda: len(job.calls("torchrun")) == 2)
    script.send_signal(signal.SIGTERM)
    job.wait_for(lambda: job.calls("scancel"))
    script.send_signal(signal.SIGTERM)
    code, requeues, output = job.end(script)
    assert (code, requeues) == (75, 1), output
    assert len(job.calls("scancel")) == 1
    received = sorted(
        (call["node"], call["signals"]) for call in job.calls("torchrun") if "signals" in call
    )
    assert received == [("0", ["TERM"]), ("1", ["TERM"])]
    assert "stopped; queued again" in output
    assert job.all_calls()[-1]["arguments"] == ["requeue", "4711"], "before both nodes had ended"
    assert (job.run / "status.json").read_text() == status("stopped")


def test_a_job_that_is_stopped_for_good_saves_and_is_not_queued_again(job):
    script = job.start(text=status("stopped"), waits=True)
    job.wait_for(lambda: len(job.calls("torchrun")) == 2)
    script.send_signal(signal.SIGUSR1)
    code, requeues, output = job.end(script)
    assert (code, requeues) == (75, 0), output
    received = [call["signals"] for call in job.calls("torchrun") if "signals" in call]
    assert received == [["TERM"], ["TERM"]]
    assert "stopped; asked to stop for good" in output


def test_a_stop_before_the_run_began_is_queued_again(job):
    script = job.start(text=None, waits=True)
    job.wait_for(lambda: len(job.calls("torchrun")) == 2)
    script.send_signal(signal.SIGTERM)
    code, requeues, output = job.end(script)
    assert (code, requeues) == (75, 1)
    assert "stopped before it began" in output


@pytest.mark.parametrize("state", ENDED_BY_SLURM)
def test_a_canceled_job_is_neither_signaled_twice_nor_queued_again(job, state):
    script = job.start(text=status("stopped"), waits=True)
    job.wait_for(lambda: len(job.calls("torchrun")) == 2)
    (job.folder / "job.txt").write_text(f"JobId=4711 {state}")
    # SLURM's own signals: to the script and to every task
    script.send_signal(signal.SIGTERM)
    for task in (job.folder / "tasks").read_text().split():
        os.kill(int(task), signal.SIGTERM)
    code, requeues, output = job.end(script)
    assert (code, requeues) == (75, 0), output
    assert job.calls("scancel") == []


@pytest.mark.parametrize(
    ("restarts", "limit", "requeues"),
    [("19", None, 1), ("20", None, 0), ("0", "0", 0), ("2", "3", 1), ("3", "3", 0)],
)
def test_a_job_is_queued_again_a_limited_number_of_times(job, restarts, limit, requeues):
    environment = {"SLURM_RESTART_COUNT": restarts} | ({"MAX_RESTARTS": limit} if limit else {})
    code, requeued, output = job.outcome(text=status("stopped"), **environment)
    assert (code, requeued) == (75, requeues)
    assert ("not queued again after" in output) == (requeues == 0)


def test_a_refused_requeue_is_no_silent_end(job):
    assert job.outcome(text=status("stopped"), FAKE_REQUEUE="3")[:2] == (3, 1)


def test_every_node_gets_the_same_line_and_its_own_rank(job):
    job.outcome(text=status("finished"), code=0)
    first, second = sorted(
        (call for call in job.calls("torchrun") if "signals" not in call),
        key=lambda call: call["node"],
    )
    assert (first["node"], second["node"]) == ("0", "1")
    assert first["arguments"] == second["arguments"]
    options, program = first["arguments"][:10], first["arguments"][10:]
    assert dict(zip(options[::2], options[1::2], strict=True)) == {
        "--nnodes": "2",
        "--nproc-per-node": "8",
        "--master-addr": "127.0.0.1",
        "--master-port": "24711",
        "--shutdown-timeout": "120",
    }
    train = ["--no-python", "visionloop-classification", "train", "--output", str(job.run)]
    assert program == [*train, "--data", "my images", "--epochs", "10"]


def test_the_stop_fits_between_slurms_signal_and_its_end(job):
    text = SCRIPT.read_text()
    assert {
        "#SBATCH --requeue",
        "#SBATCH --ntasks-per-node=1",
        "#SBATCH --open-mode=append",
    } <= set(text.splitlines())
    signalled = int(re.search(r"^#SBATCH --signal=B:TERM@(\d+)$", text, re.MULTILINE)[1])
    job.outcome(text=status("finished"), code=0)
    (srun,) = job.calls("srun")
    (first,) = (
        call for call in job.calls("torchrun") if call["node"] == "0" and "signals" not in call
    )
    shutdown = int(first["arguments"][first["arguments"].index("--shutdown-timeout") + 1])
    (wait,) = (
        int(word.removeprefix("--wait="))
        for word in srun["arguments"]
        if word.startswith("--wait=")
    )
    assert shutdown < wait < signalled
    assert "--kill-on-bad-exit=0" in srun["arguments"]


def test_a_call_without_a_run_shows_how_it_is_meant():
    process = subprocess.run(
        ["bash", str(SCRIPT), "classification"], capture_output=True, text=True
    )
    assert process.returncode == 2 and "usage: sbatch" in process.stderr


@pytest.mark.slow
def test_a_run_on_two_nodes_is_stopped_queued_again_and_finished(tmp_path):
    """torchrun and the training are the real ones; both nodes are this machine."""
    job = Job(tmp_path, fakes=("srun", "scontrol", "scancel"))
    job.environment |= {
        "SLURM_JOB_ID": free_job(),
        "PROCESSES": "1",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    job.options = [
        "--data",
        str(write_classification(tmp_path / "images")),
        *SIZE["classification"],
        *OPTIONS,
        "--steps",
        "120",
    ]

    script = job.start()
    metrics = job.run / "metrics.jsonl"
    job.wait_for(
        lambda: metrics.exists() and metrics.stat().st_size, seconds=LONGEST
    )  # a step is done
    script.send_signal(signal.SIGTERM)
    code, requeues, output = job.end(script, seconds=LONGEST)
    stopped = json.loads((job.run / "status.json").read_text())
    assert (code, requeues, stopped["state"]) == (75, 1, "stopped"), output
    assert 0 < stopped["step"] < 120

    code, requeues, output = job.end(job.start(SLURM_RESTART_COUNT="1"), seconds=LONGEST)
    assert (code, requeues) == (0, 1), output
    assert f"resuming after step {stopped['step']}" in output and "2 process(es)" in output
    assert json.loads((job.run / "status.json").read_text())["state"] == "finished"
    assert left_behind(str(job.run)) == []


def free_job():
    """A job number whose port for process 0 is free on this machine."""
    for number in range(os.getpid(), os.getpid() + 1000):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", 20000 + number % 10000))
            return str(number)
    raise AssertionError("no port is free")
