"""Real trainings in the queue: paused, killed, adopted and resumed to the same bytes."""

import hashlib
import json
import os
import signal
import subprocess
import time

import pytest
from studio_server import ApiProblem, studio_server
from torchrun_runs import ENVIRONMENT, write_classification

from visionloop.bin.web.jobs.processes import descendants, is_alive, kill_all, lock_holder
from visionloop.bin.web.jobs.spec import python_command
from visionloop.bin.web.runs.identity import run_id

pytestmark = pytest.mark.slow
LONGEST = 240  # seconds that anything may take on a busy machine
STEPS = 80
SETTINGS = {
    "model": "tiny",
    "from_scratch": True,
    "image_size": 32,
    "batch_size": 6,
    "steps": STEPS,
    "workers": 1,
    "threads": 1,
    "device": "cpu",
    "precision": "fp32",
    "log_every": 1,
    "eval_every": 40,
    "save_every": 20,
    "keep": 4,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_classification(tmp_path_factory.mktemp("data") / "shades")


def words(data, output):
    values = {"data": data, "output": output} | SETTINGS
    flags = [(f"--{name.replace('_', '-')}", value) for name, value in values.items()]
    return [str(word) for flag in flags for word in flag if word is not True]


@pytest.fixture(scope="module")
def expected(data, tmp_path_factory):
    """Hashes of the files of the same run from the command line, undisturbed."""
    output = tmp_path_factory.mktemp("undisturbed") / "run"
    command = python_command("classification", "train", *words(data, output))
    subprocess.run(command, check=True, env=ENVIRONMENT, capture_output=True)
    return hashes(output)


def hashes(run):
    folders = (run / "checkpoints" / f"step_{STEPS:08d}", run / "best")
    files = [path for folder in folders for path in folder.iterdir()]
    assert len(files) >= 10
    return {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


@pytest.fixture
def serve(tmp_path, data):
    """serve() -> a server for the same folder; those still alive at the end are ended."""
    yield lambda: studio_server(tmp_path, data=data.parent)
    for lock in tmp_path.glob("state/jobs/*/lock"):
        if holder := lock_holder(lock):
            kill_all(holder.pid)


def body(**changes):
    return {"task": "classification", "settings": SETTINGS | {"data": "shades"}} | changes


def wait_for(check):
    """Return the first true answer."""
    until = time.monotonic() + LONGEST
    while time.monotonic() < until:
        if answer := check():
            return answer
        time.sleep(0.1)
    raise AssertionError("it takes too long")


def job_in(server, job, *states):
    def check():
        row = server.get(f"/jobs/{job['id']}")
        return row if row["state"] in states else None

    try:
        return wait_for(check)
    except AssertionError:
        row = server.get(f"/jobs/{job['id']}")
        raise AssertionError((row, server.get(f"/jobs/{job['id']}/log?offset=-1"))) from None


def at_step(run, step):
    """Whether a run has logged a step."""

    def check():
        try:
            lines = (run / "metrics.jsonl").read_text().splitlines()
            return any(json.loads(line)["step"] >= step for line in lines)
        except (OSError, ValueError):
            return False

    return check


def test_a_run_that_is_paused_for_another_ends_with_the_same_bytes(serve, expected, tmp_path):
    run = tmp_path / "runs" / "a"
    with serve() as server:
        first = server.post("/jobs", body(run_name="a"))
        second = server.post("/jobs", body(run_name="b"))
        wait_for(at_step(run, 30))
        server.post(f"/jobs/{first['id']}/pause", {"for": second["id"]})
        job_in(server, second, "running")
        assert server.get(f"/jobs/{first['id']}")["state"] in ("verifying", "queued")
        for job in (second, first):
            assert job_in(server, job, "finished", "failed")["state"] == "finished"
        assert server.get(f"/jobs/{first['id']}")["attempt"] == 2
    assert hashes(run) == hashes(tmp_path / "runs" / "b") == expected


def test_a_killed_server_leaves_its_run_to_the_next_one(serve, expected, tmp_path):
    run = tmp_path / "runs" / "a"
    with serve() as server:
        job = server.post("/jobs", body(run_name="a"))
        wait_for(at_step(run, 10))
        server.process.kill()
    trainer = lock_holder(run / ".lock")
    os.kill(trainer.pid, signal.SIGSTOP)  # it could end before the next server has started
    with serve() as server:
        row = server.get(f"/jobs/{job['id']}")
        assert (row["state"], row["attempt"]) == ("running", 1)
        assert lock_holder(run / ".lock") == trainer
        os.kill(trainer.pid, signal.SIGCONT)
        server.process.terminate()
        server.process.wait()
    with serve() as server:
        assert job_in(server, job, "finished", "failed")["attempt"] == 1
    assert hashes(run) == expected


def test_a_kill_ends_data_workers_too_and_the_run_resumes(serve, expected, tmp_path):
    run = tmp_path / "runs" / "a"
    with serve() as server:
        job = server.post("/jobs", body(run_name="a"))
        wait_for(at_step(run, 30))
        trainer = lock_holder(run / ".lock")
        processes = [trainer, *descendants(trainer.pid)]
        assert len(processes) > 1
        server.post(f"/jobs/{job['id']}/kill")
        assert job_in(server, job, "stopped", "failed", "lost")["state"] == "stopped"
        assert not any(map(is_alive, processes))
        server.post(f"/jobs/{job['id']}/resume")
        assert job_in(server, job, "finished", "failed")["state"] == "finished"
    assert hashes(run) == expected


def test_a_damaged_checkpoint_is_named_when_a_run_has_stopped(serve, tmp_path):
    run = tmp_path / "runs" / "a"
    with serve() as server:
        job = server.post("/jobs", body(run_name="a"))
        wait_for(lambda: (run / "checkpoints" / "step_00000020" / "state.json").exists())
        wait_for(at_step(run, 25))
        (damaged,) = (run / "checkpoints" / "step_00000020").glob("model*.safetensors")
        content = damaged.read_bytes()
        damaged.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        server.post(f"/jobs/{job['id']}/stop")
        row = job_in(server, job, "stopped", "failed")
        assert (row["state"], row["error"]["code"]) == ("stopped", "bad_checkpoint")
        assert "step_00000020" in row["error"]["message"]
        assert row["can"]["resume"]


@pytest.mark.parametrize("verb", ["stop", "kill"])
def test_a_run_of_the_command_line_is_ended_and_resumed(serve, expected, data, tmp_path, verb):
    """It was started with relative paths, in another folder than the server's."""
    run = tmp_path / "runs" / "own"
    command = python_command("classification", "train", *words(data.name, "runs/own"))
    (tmp_path / data.name).symlink_to(data)
    process = subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    try:
        wait_for(at_step(run, 30))
        process.send_signal(signal.SIGSTOP)  # it could end before the server has started
        with serve() as server:
            name = run_id(run)
            with pytest.raises(ApiProblem, match="locked"):
                server.post(f"/runs/{name}/resume")
            process.send_signal(signal.SIGCONT)
            job = server.post(f"/runs/{name}/{verb}")
            assert job["run_id"] == name
            assert job_in(server, job, "stopped", "failed", "lost")["state"] == "stopped"
            assert process.wait(LONGEST) == (75 if verb == "stop" else -signal.SIGKILL)
            with pytest.raises(ApiProblem, match="not_running"):
                server.post(f"/runs/{name}/{verb}")
            assert server.post(f"/runs/{name}/resume")["id"] == job["id"]
            assert job_in(server, job, "finished", "failed")["state"] == "finished"
            with pytest.raises(ApiProblem, match="finished"):
                server.post(f"/runs/{name}/resume")
    finally:
        process.kill()
        process.wait()
    assert hashes(run) == expected


def test_a_run_under_torchrun_is_stopped_and_resumed(serve, tmp_path):
    run = tmp_path / "runs" / "a"
    launcher = {"kind": "torchrun", "processes": 2, "max_restarts": 0}
    with serve() as server:
        job = server.post("/jobs", body(run_name="a", launcher=launcher))
        wait_for(at_step(run, 10))
        server.post(f"/jobs/{job['id']}/stop")
        row = job_in(server, job, "stopped", "failed", "lost")
        assert (row["state"], row["error"]) == ("stopped", None)
        assert json.loads((run / "status.json").read_text())["state"] == "stopped"
        server.post(f"/jobs/{job['id']}/resume")
        assert job_in(server, job, "finished", "failed")["state"] == "finished"
        assert json.loads((run / "environment.json").read_text())["processes"] == 2


def test_a_wrong_setting_of_a_run_is_the_error_of_its_job(serve, data, tmp_path):
    (data.parent / "empty").mkdir(exist_ok=True)
    with serve() as server:
        settings = SETTINGS | {"data": "empty"}
        job = server.post("/jobs", body(settings=settings))
        row = job_in(server, job, "finished", "failed")
        assert row["state"] == "failed"
        assert row["error"]["code"] == "bad_layout"
        assert "empty" in row["error"]["message"]
        assert row["log_tail"]
        assert os.path.isdir(row["run"])
        server.request("DELETE", f"/jobs/{job['id']}")
        assert os.path.isdir(row["run"])
