"""`report list`: a line for each run below a folder."""

import json
import os
import time
from pathlib import Path

from visionloop.bin.model_zoo.listing import columns
from visionloop.bin.reports.run_folder import (
    as_object,
    best_of,
    is_run,
    number_or_none,
    read_object,
    state_of,
)
from visionloop.engine.errors import UserError

FACTS = (
    "status.json",
    "settings.json",
    "metrics.jsonl",
)  # the first one there tells when the run last did something


def run_list(folder, *, as_json):
    """Print the runs below `folder`, the latest first. Raises UserError where there is no such folder."""
    top = Path(folder)
    if not top.is_dir():
        why = "not a folder" if top.exists() else "no such folder"
        raise UserError(f"{folder}: {why}, expected one with runs", file=folder, field="folder")
    now = time.time()
    rows = sorted(
        (describe(path, top, now) for path in find_runs(top)),
        key=lambda row: (row["age_seconds"], row["name"]),
    )
    if as_json:
        print(json.dumps(rows))
        return
    print("\n".join(table(rows)) if rows else f"{folder}: no run")


def find_runs(top):
    """Run folders at or below `top`, by path. A run's own folders and hidden ones are not searched."""
    for path, folders, _ in os.walk(top):
        if is_run(Path(path)):
            folders.clear()
            yield Path(path)
        folders[:] = sorted(name for name in folders if not name.startswith("."))


def describe(path, top, now):
    """A run's line as an object. age_seconds: since it last gave a sign of life."""
    settings, status = (read_object(path / name, []) for name in ("settings.json", "status.json"))
    task = as_object(as_object(settings.get("settings")).get("task")).get("value")
    written = next((path / name).stat().st_mtime for name in FACTS if (path / name).is_file())
    beat = number_or_none(status.get("heartbeat"))
    return {
        "name": path.name if path == top else path.relative_to(top).as_posix(),
        "folder": str(path),
        "task": task,
        "state": state_of(status, now),
        "step": number_or_none(status.get("step")),
        "steps": number_or_none(status.get("steps")),
        "best": best_of(status),
        "age_seconds": round(max(0.0, now - (written if beat is None else beat)), 1),
    }


def table(rows):
    """Lines, the headings first."""
    cells = [("run", "task", "state", "step", "best", "last sign")]
    for row in rows:
        best = row["best"]
        # the key is enough: what it is called stands beside code that imports torch
        score = (
            f"{best['metric']} {best['score']:.4f} at step {best['step']}"
            if best and best["score"] is not None
            else "-"
        )
        done = (
            "-"
            if row["step"] is None
            else f"{row['step']}/{row['steps']}"
            if row["steps"]
            else str(row["step"])
        )
        cells.append(
            (
                row["name"],
                row["task"] or "-",
                row["state"],
                done,
                score,
                show_age(row["age_seconds"]),
            )
        )
    return columns(cells)


def show_age(seconds):
    """How long ago, in the largest unit that fits."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return f"{int(seconds)} s ago"
