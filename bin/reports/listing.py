"""`report list`: a line for each run below a folder."""

import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from visionloop.bin.model_zoo.listing import columns
from visionloop.bin.reports.branches import changes_text, in_tree, read_branch
from visionloop.bin.reports.run_folder import (
    RUN_FILES,
    as_object,
    best_of,
    is_run,
    number_or_none,
    read_object,
    state_of,
)
from visionloop.engine.errors import UserError
from visionloop.engine.types import JsonObject

# the time of the first one that exists is that of the last activity
ACTIVITY_FILES = ("status.json", "settings.json", "metrics.jsonl")


def run_list(folder: str, *, as_json: bool) -> None:
    """Print the runs below `folder`, the most recently active first.

    Raises UserError without the folder.
    """
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
    tree = list(in_tree(rows, lambda row: (Path(row["folder"]).resolve(), row["branch"])))
    print("\n".join(table(tree)) if rows else f"{folder}: no runs")


def find_runs(top: Path, *, most_folders: int | None = None) -> Iterator[Path]:
    """Yield the run folders at or below `top`, sorted by path.

    Folders inside a run and hidden ones are not searched. most_folders: limit of those searched.
    """
    for number, (path, folders, files) in enumerate(os.walk(top)):
        if number == most_folders:
            return
        if not set(files).isdisjoint(RUN_FILES) and is_run(Path(path)):
            folders.clear()
            yield Path(path)
        folders[:] = sorted(name for name in folders if not name.startswith("."))


def describe(path: Path, top: Path, now: float) -> JsonObject:
    """Return the line of a run as an object.

    age_seconds: since its last heartbeat, or else since its files were last written.
    """
    settings, status = (read_object(path / name) for name in ("settings.json", "status.json"))
    task = as_object(as_object(settings.get("settings")).get("task")).get("value")
    files = [path / name for name in ACTIVITY_FILES if (path / name).is_file()]
    heartbeat = number_or_none(status.get("heartbeat"))
    last_activity = files[0].stat().st_mtime if heartbeat is None else heartbeat
    return {
        "name": path.name if path == top else path.relative_to(top).as_posix(),
        "folder": str(path),
        "task": task,
        "state": state_of(status, now),
        "step": number_or_none(status.get("step")),
        "steps": number_or_none(status.get("steps")),
        "best": best_of(status),
        "branch": read_branch(path),
        "age_seconds": round(max(0.0, now - last_activity), 1),
    }


def table(tree: Sequence[tuple[int, JsonObject]]) -> list[str]:
    """Return the lines of the table, headings first. tree: (depth, row of a run)."""
    cells: list[tuple[str, ...]] = [("run", "task", "state", "step", "best", "last active")]
    for depth, row in tree:
        task, age = row["task"] or "-", show_age(row["age_seconds"])
        name = f"{'   ' * (depth - 1)}└─ {row['name']}" if depth else row["name"]
        cells.append((name, task, row["state"], show_step(row), show_best(row), age))
    if any(row["branch"] for _, row in tree):
        branches = ["branch", *(show_branch(row["branch"]) for _, row in tree)]
        cells = [(*cell, branch) for cell, branch in zip(cells, branches, strict=True)]
    return columns(cells)


def show_branch(branch: JsonObject | None) -> str:
    """Return source, step and changes of a branch."""
    if branch is None:
        return ""
    return f"{branch['name']}@{branch['step']}: {changes_text(branch['changes'])}"


def show_step(row: JsonObject) -> str:
    """Return `step/steps` of a run."""
    if row["step"] is None:
        return "-"
    return f"{row['step']}/{row['steps']}" if row["steps"] else str(row["step"])


def show_best(row: JsonObject) -> str:
    """Return the best score of a run by its key, as in metrics.jsonl."""
    best = row["best"]
    if not best or best["score"] is None:
        return "-"
    return f"{best['metric']} {best['score']:.4f} at step {best['step']}"


def show_age(seconds: float) -> str:
    """Return a duration in the largest unit that fits, as `3 min ago`."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return f"{int(seconds)} s ago"
