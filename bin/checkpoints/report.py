"""`checkpoint list`: a line for each checkpoint of a run."""

import json
from datetime import datetime

from visionloop.bin.checkpoints.folders import (
    DAMAGED,
    existing_folder,
    find_places,
    half_written_folders,
    is_checkpoint,
    latest_valid_folder,
    read_folder,
    read_folders,
    show_size,
)
from visionloop.engine.errors import FINISHED


def run_list(path, *, as_json):
    """Print a table, or {"checkpoints": [..], "best_step", "metric"}, of all step folders with their scores and condition."""
    places = find_places(path)
    folders = read_folders(places.checkpoints)
    newest = latest_valid_folder(folders)
    best = newest.best if newest else None
    metric = best["metric"] if best else None
    rows = [
        describe(found, best, metric)
        for found in folders + half_written_folders(places.checkpoints)
    ]
    if as_json:
        print(
            json.dumps(
                {"best_step": best["step"] if best else None, "metric": metric, "checkpoints": rows}
            )
        )
        return
    print("\n".join(table(rows, metric) if rows else [f"{places.checkpoints}: no checkpoint"]))


def describe(found, best, metric):
    """A checkpoint's line as an object. best, metric: of the newest whole one."""
    return {
        "step": found.step,
        "folder": str(found.path),
        "written": datetime.fromtimestamp(found.written).astimezone().isoformat(timespec="seconds"),
        "bytes": found.size,
        "condition": found.condition,
        "problems": found.problems,
        "is_best": best is not None and best["step"] == found.step,
        "score": (found.content.get("scores") or {}).get(metric),
        "evaluated_at": found.content.get("evaluated_at"),
    }


def table(rows, metric):
    """Lines, the headings first."""
    cells = [("step", "written", "size", "condition", metric or "score", "")]
    for row in rows:
        score = "-" if row["score"] is None else f"{row['score']:.4f}"
        # between two evaluations the score is that of the last one
        late = (
            f"as of step {row['evaluated_at']}"
            if row["score"] is not None and row["evaluated_at"] != row["step"]
            else ""
        )
        notes = ", ".join(
            filter(None, ["best" if row["is_best"] else "", late, *row["problems"][:1]])
        )
        step = str(row["step"]) if row["step"] is not None else row["folder"].rsplit("/", 1)[-1]
        cells.append(
            (
                step,
                row["written"][:19].replace("T", " "),
                show_size(row["bytes"]),
                row["condition"],
                score,
                notes,
            )
        )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    left = (False, True, False, True, False, True)
    return [
        "  ".join(
            f"{cell:{'<' if is_left else '>'}{width}}"
            for cell, width, is_left in zip(line, widths, left, strict=True)
        ).rstrip()
        for line in cells
    ]


# `checkpoint verify`: whether every file of every checkpoint is as it was written.

DAMAGE = 1  # the exit code


def run_verify(path, *, as_json):
    """Print a line, or an object in a list, for each folder. Returns the exit code: DAMAGE when one is damaged.

    What is half-written is no damage: the run removes it. A best/ has a manifest like a step
    folder, and without it is damaged too.
    """
    folder = existing_folder(path)
    found = [read_folder(folder)] if is_checkpoint(folder) else all_folders(find_places(path))
    damaged = sum(one.condition == DAMAGED for one in found)
    if as_json:
        rows = [
            {"folder": str(one.path), "condition": one.condition, "problems": one.problems}
            for one in found
        ]
        print(json.dumps({"damaged": damaged, "folders": rows}))
    else:
        print("\n".join(map(as_line, found)) or f"{path}: no checkpoint")
    return DAMAGE if damaged else FINISHED


def all_folders(places):
    """Step folders, half-written ones, and best/ with what a swap that was cut short left of it."""
    found = read_folders(places.checkpoints) + half_written_folders(places.checkpoints)
    if places.run:
        found += [read_folder(places.run / "best")] if (places.run / "best").is_dir() else []
        found += [
            read_folder(rest, half_written=True)
            for rest in sorted(places.run.glob(".*best.*"))
            if rest.is_dir()
        ]
    return found


def as_line(found):
    """One line, with all that is wrong."""
    if found.problems:
        return f"{found.path}: {found.condition}: {'; '.join(found.problems)}"
    return f"{found.path}: {found.condition}, {len(found.sizes)} files, {show_size(found.size)}"
