"""Run folders written without training, in any number: lines as the engine writes them.

python tests/support/written_runs.py FOLDER --runs 50 --points 10000
"""

import argparse
import hashlib
import json
import math
import os
import random
import time
from pathlib import Path

BEGAN = 1_700_000_000.0


def training_line(step, chance=random):
    """A `train` line of a detector."""
    loss = 4 * math.exp(-step / 20_000) + chance.random() / 10
    terms = {f"loss_{name}": loss / 3 for name in ("vfl", "bbox", "giou")}
    return {
        "time": BEGAN + step * 0.1 + chance.random() / 100,
        "step": step,
        "epoch": step // 1000,
        "kind": "train",
        "loss": loss,
        **terms,
        "lr": 1e-4,
        "grad_norm": 1 + chance.random(),
        "step_ms": round(100 + chance.random(), 3),
        "data_wait": 0.01,
    }


def evaluation_line(step):
    """An `eval` line of a detector."""
    score = 1 - math.exp(-step / 50_000)
    metrics = {"mAP": score, "mAP50": (1 + score) / 2, "val_loss": 2 - score}
    return {
        "time": BEGAN + step * 0.1,
        "step": step,
        "epoch": step // 1000,
        "kind": "eval",
        "train_loss": 1.0,
        "val_loss": 2 - score,
        "metrics": metrics,
    }


def text_of(line):
    return json.dumps(line) + "\n"


def write_run(
    folder, *, points=100, evaluations=2, state="finished", task="detection", seed=0, **settings
):
    """Write the files of a run with `points` lines of training. settings: {name: value}."""
    folder.mkdir(parents=True)
    chance, log_every = random.Random(seed), 10
    steps = points * log_every
    values = {"task": task, "model": "dfine-nano-coco", "data": "/data/parts", "seed": seed}
    rows = {
        name: {"value": value, "source": "flag"} for name, value in {**values, **settings}.items()
    }
    (folder / "settings.json").write_text(json.dumps({"schema": 1, "settings": rows}))
    command = ["bin/detection.py", "train", "--data", "/data/parts"]
    environment = {"command": command, "processes": 1, "git_commit": None}
    (folder / "environment.json").write_text(json.dumps(environment))
    every = max(1, points // evaluations)
    with open(folder / "metrics.jsonl", "w") as file:
        for number in range(1, points + 1):
            file.write(text_of(training_line(number * log_every, chance)))
            if number % every == 0:
                write_evaluation(folder, number * log_every)
                file.write(text_of(evaluation_line(number * log_every)))
    last = evaluation_line(steps)["metrics"]
    write_status(folder, state=state, step=steps, steps=steps, best=best_of(steps, last))
    return folder


def write_branch(folder, source, step, **changes):
    """Write the files of a run that branches from another one."""
    write_run(folder, points=20, seed=1)
    lines = (source / "metrics.jsonl").read_text().splitlines(keepends=True)
    shared = "".join(line for line in lines if json.loads(line)["step"] <= step)
    own = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    rest = "".join(line for line in own if json.loads(line)["step"] > step)
    (folder / "metrics.jsonl").write_text(shared + rest)
    history = {"bytes": len(shared), "sha256": hashlib.sha256(shared.encode()).hexdigest()}
    record = {"schema": 1, "branch": f"{source}@{step}", "run": str(source.resolve())}
    record |= {"extend": None, "step": step, "changes": changes, "history": history}
    (folder / "branch.json").write_text(json.dumps(record))
    return folder


def best_of(step, scores):
    return {"step": step, "metric": "mAP", "score": scores["mAP"], "scores": scores}


def write_status(folder, *, state="running", step=0, steps=1000, best=None, error=None, age=0.0):
    """Replace status.json, as the engine does. age: seconds since the heartbeat."""
    status = {
        "schema": 1,
        "state": state,
        "step": step,
        "epoch": 0,
        "steps": steps,
        "eta": None,
        "best": best,
        "error": error,
        "heartbeat": time.time() - age,
    }
    (folder / ".status").write_text(json.dumps(status))
    os.replace(folder / ".status", folder / "status.json")


def write_evaluation(folder, step):
    """A record with one image."""
    record = folder / "evaluations" / f"step_{step:08d}"
    record.mkdir(parents=True)
    (record / "fixed_00.jpg").write_bytes(b"\xff\xd8\xff\xe0 a small picture \xff\xd9")
    rows = [{"name": "images/1.jpg", "image": "fixed_00.jpg", "score": 0.5}]
    score = {"label": "AP", "format": "percent", "higher_is_better": True, "description": "of one"}
    content = {
        "schema": 1,
        "step": step,
        "epoch": 0,
        "scores": {"mAP": 0.5},
        "raw_scores": None,
        "intervals": {"mAP": [0.4, 0.6]},
        "reference": {},
        "classes": None,
        "confusion": None,
        "curves": [],
        "sample_score": score,
        "fixed": rows,
        "worst": rows,
    }
    (record / "record.json").write_text(json.dumps(content))


def append(folder, *lines):
    """Add lines to metrics.jsonl: objects, or text that is written as it is."""
    with open(folder / "metrics.jsonl", "a") as file:
        file.write("".join(line if isinstance(line, str) else text_of(line) for line in lines))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--points", type=int, default=10_000)
    options = parser.parse_args()
    for number in range(options.runs):
        name = f"run-{number:03d}"
        write_run(
            options.folder / name, points=options.points, evaluations=20, seed=number, lr=number
        )
