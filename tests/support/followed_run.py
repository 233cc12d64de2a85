"""A run folder that grows as a training writes it, and a follower that is killed meanwhile."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from visionloop.engine.checkpoints.files import replace_file

FOLLOW = Path(__file__).parents[2] / "bin" / "follow.py"


class GrowingRun:
    """A run folder whose files are written in the engine's order and in its way."""

    def __init__(self, folder):
        self.folder, self.metrics = folder, folder / "metrics.jsonl"
        folder.mkdir()
        self.settings(lr=0.001, model="tiny", image_size=None)
        self.status("running")
        self.metrics.touch()

    def settings(self, **values):
        rows = {name: {"value": value, "source": "flag"} for name, value in values.items()}
        (self.folder / "settings.json").write_text(json.dumps({"settings": rows}))

    def status(self, state, heartbeat=None, **fields):
        status = {"state": state, "heartbeat": heartbeat or time.time(), "best": None} | fields
        replace_file(self.folder / "status.json", json.dumps(status))

    def train(self, first, last, pause=0.0):
        """Append a line for each step, every fifth with an evaluation; some in two writes."""
        for step in range(first, last):
            place = {"time": round(time.time(), 3), "step": step, "epoch": 0}
            rows = [place | {"kind": "train", "loss": 1 / step, "lr": 0.1, "grad_norm": None}]
            if step % 5 == 0:
                scores = {"accuracy": step / 1000, "mAP@0.5": 0.5}
                rows.append(place | {"kind": "eval", "train_loss": 0.5, "metrics": scores})
            text = "".join(json.dumps(row) + "\n" for row in rows)
            with open(self.metrics, "a") as file:
                file.write(text[: len(text) // 2])
                file.flush()
                time.sleep(pause)
                file.write(text[len(text) // 2 :])

    def cut(self, step):
        """Remove the lines after a step, as a resumed training does."""
        lines = self.metrics.read_text().splitlines(keepends=True)
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        replace_file(self.metrics, "".join(kept))


def points_of(run):
    """{(key, step): value} of a metrics.jsonl."""
    points = {}
    for text in run.metrics.read_text().splitlines():
        line = json.loads(text)
        if line["kind"] == "train":
            values = {"train/loss": line["loss"], "train/lr": line["lr"]}
        else:
            scores = {
                f"eval/{key}".replace("@", "_"): line["metrics"][key] for key in line["metrics"]
            }
            values = {"eval/train_loss": line["train_loss"], **scores}
        points |= {(key, line["step"]): value for key, value in values.items()}
    return points


def start_follower(run, *arguments, **options):
    """A follower in a process of its own."""
    command = [sys.executable, FOLLOW, run.folder, "--interval", "0.05", *arguments]
    return subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def follow_with_kills(run, *arguments, kills, longest, is_growing):
    """Kill followers at random moments, as long as the run grows; let the last one end.

    Returns the output of the last one.
    """
    moments, killed = random.Random(7), 0
    while killed < kills or is_growing():
        follower = start_follower(run, *arguments)
        time.sleep(moments.uniform(0, longest))
        if follower.poll() is None:
            os.kill(follower.pid, signal.SIGKILL)
            killed += 1
        follower.communicate()
    out, err = start_follower(run, *arguments).communicate(timeout=60)
    assert err == ""
    return out
