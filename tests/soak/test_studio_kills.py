"""A studio server killed at random moments loses no job or event, and starts none twice."""

import hashlib
import json
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from studio_server import ROOT, ApiProblem, studio_server

from visionloop.datasets.synthetic.writers import WRITERS

KILLS = 20
LONGEST = 1200  # seconds until both trainings have finished
SETTINGS = {
    "model": "tiny",
    "from_scratch": True,
    "batch_size": 4,
    "steps": 120,
    "eval_every": 30,
    "save_every": 20,
    "log_every": 1,
    "workers": 0,
    "threads": 1,
    "precision": "fp32",
    "device": "cpu",
}


class Client:
    """A client of one run's events, which connects again with the cursor of its last event."""

    def __init__(self) -> None:
        self.cursor, self.steps, self.servers = "0", [], 0
        self.studio, self.run_id = None, None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self):
        while not self._closing.wait(0.1):
            if self.studio is None or self.run_id is None:
                continue
            try:
                answer = self.studio.get(f"/runs/{self.run_id}/events/poll?cursor={self.cursor}")
            except (ApiProblem, OSError):
                continue  # the server is dead, or has not looked at its folders yet
            for event in answer["events"]:
                assert event["event"] != "reset", "no run was resumed here"
                if event["event"] == "metrics":
                    line = json.loads(event["data"])
                    self.steps += [line["step"]] if line["kind"] == "train" else []
            self.cursor = answer["cursor"]

    def close(self):
        self._closing.set()
        self._thread.join()


def digests(run):
    """{name: digest} of the last checkpoint and of best/."""
    folders = (run / "checkpoints" / f"step_{SETTINGS['steps']:08d}", run / "best")
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    assert files
    return {
        path.relative_to(run).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def undisturbed(data, seed, output):
    """The digests of the same run, started from the command line."""
    words = []
    for name, value in (SETTINGS | {"seed": seed, "data": data}).items():
        flag = f"--{name.replace('_', '-')}"
        words += [flag] if value is True else [flag, str(value)]
    command = [sys.executable, str(ROOT / "bin" / "classification.py"), "train", *words]
    subprocess.run([*command, "--output", str(output)], check=True, capture_output=True)
    return digests(output)


@pytest.mark.soak
def test_a_server_killed_twenty_times_finishes_two_trainings_with_the_same_bytes(tmp_path):
    data = tmp_path / "data" / "signs"
    data.mkdir(parents=True)
    WRITERS["classification"](data, 0, images={"train": 24, "val": 8})
    generator, client, jobs, kills = random.Random(0), Client(), {}, 0
    end = time.monotonic() + LONGEST
    states: dict[str, str] = {}
    while set(states.values()) != {"finished"} or kills < KILLS:
        assert time.monotonic() < end, states
        with studio_server(tmp_path) as studio:
            if not jobs:
                for seed in (1, 2):
                    settings = SETTINGS | {"seed": seed, "data": str(data)}
                    body = {"kind": "train", "task": "classification", "settings": settings}
                    job = studio.post("/jobs", body | {"launcher": {"kind": "local"}})
                    jobs[job["id"]] = (seed, Path(job["run"]))
                    client.run_id = client.run_id or job["run_id"]
            client.studio = studio
            # killed from the first moments of a server to some steps later
            time.sleep(generator.uniform(0, 3) if kills < KILLS else 0.5)
            states = {job["id"]: job["state"] for job in studio.get("/jobs")["jobs"]}
            assert states.keys() == jobs.keys(), "a job is lost, or there is one more"
            if kills < KILLS:
                studio.process.kill()
                studio.process.wait()
                kills += 1
    with studio_server(tmp_path) as studio:
        client.studio = studio
        while len(client.steps) < SETTINGS["steps"]:
            assert time.monotonic() < end, len(client.steps)
            time.sleep(0.1)
        client.close()
    assert client.steps == list(range(1, SETTINGS["steps"] + 1)), "events are lost or doubled"
    for job_id, (seed, run) in jobs.items():
        folder = tmp_path / "state" / "jobs" / job_id
        assert json.loads((folder / "process.json").read_text())["attempt"] == 1
        assert digests(run) == undisturbed(data, seed, tmp_path / "alone" / str(seed))
