"""A run folder that looks alive to the studio: a copy of a run whose files go on growing."""

import json
import time
from pathlib import Path

from report_runs import change, copy_run


def live_run(trained_run: Path, folder: Path, *, steps: int = 1000) -> Path:
    """Return a copy of a run that claims to be running."""
    run: Path = copy_run(trained_run, folder)
    beat(run, steps=steps)
    return run


def beat(run: Path, **changes: object) -> None:
    """Write a heartbeat."""
    change(
        run / "status.json",
        lambda status: status.update(
            state="running", heartbeat=time.time(), eta=time.time() + 60, **changes
        ),
    )


def log_step(run: Path, step: int, loss: float) -> None:
    """Write a training line as the engine does."""
    line = {
        "time": time.time(),
        "step": step,
        "epoch": 0,
        "kind": "train",
        "loss": loss,
        "lr": 1e-4,
        "grad_norm": 1.0,
        "step_ms": 10.0,
        "data_wait": 0.1,
    }
    with open(run / "metrics.jsonl", "a") as file:
        file.write(json.dumps(line) + "\n")
    beat(run, step=step)
