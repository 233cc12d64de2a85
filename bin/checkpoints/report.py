"""`checkpoint list` and `checkpoint verify`: the condition of every checkpoint of a run."""

import json
from datetime import datetime

from visionloop.bin.checkpoints.folders import (
    DAMAGED,
    CheckpointFolder,
    Places,
    existing_folder,
    find_places,
    format_size,
    incomplete_folders,
    is_checkpoint,
    latest_valid_folder,
    read_folder,
    read_folders,
)
from visionloop.engine.errors import FINISHED
from visionloop.engine.types import JsonObject

DAMAGE = 1  # exit code of `verify` when something is damaged


def run_list(path: str, *, as_json: bool) -> None:
    """Print all step folders with score and condition, as a table or JSON.

    The JSON object is {"checkpoints": [..], "best_step", "metric"}.
    """
    places = find_places(path)
    folders = read_folders(places.checkpoints)
    newest = latest_valid_folder(folders)
    best = newest.best if newest else None
    metric = best["metric"] if best else None
    rows = [
        describe(folder, best, metric)
        for folder in folders + incomplete_folders(places.checkpoints)
    ]
    if as_json:
        print(
            json.dumps(
                {"best_step": best["step"] if best else None, "metric": metric, "checkpoints": rows}
            )
        )
        return
    print("\n".join(table(rows, metric) if rows else [f"{places.checkpoints}: no checkpoint"]))


def describe(folder: CheckpointFolder, best: JsonObject | None, metric: str | None) -> JsonObject:
    """Return one row. best, metric: those of the latest valid checkpoint."""
    return {
        "step": folder.step,
        "folder": str(folder.path),
        "written": datetime.fromtimestamp(folder.written)
        .astimezone()
        .isoformat(timespec="seconds"),
        "bytes": folder.size,
        "condition": folder.condition,
        "problems": folder.problems,
        "is_best": best is not None and best["step"] == folder.step,
        "score": (folder.content.get("scores") or {}).get(metric),
        "evaluated_at": folder.content.get("evaluated_at"),
    }


def table(rows: list[JsonObject], metric: str | None) -> list[str]:
    """Format rows as aligned lines, with a header line."""
    cells: list[tuple[str, ...]] = [("step", "written", "size", "condition", metric or "score", "")]
    for row in rows:
        score = "-" if row["score"] is None else f"{row['score']:.4f}"
        # between two evaluations, the score is that of the last one
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
                format_size(row["bytes"]),
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


def run_verify(path: str, *, as_json: bool) -> int:
    """Compare every file with its hash; print a line per folder, or JSON.

    Incomplete folders are not damage: the run removes them. A best/ without a manifest is
    damaged, like a step folder. Returns the exit code, DAMAGE if a folder is damaged.
    """
    folder = existing_folder(path)
    folders = [read_folder(folder)] if is_checkpoint(folder) else all_folders(find_places(path))
    damaged = sum(one.condition == DAMAGED for one in folders)
    if as_json:
        rows = [
            {"folder": str(one.path), "condition": one.condition, "problems": one.problems}
            for one in folders
        ]
        print(json.dumps({"damaged": damaged, "folders": rows}))
    else:
        print("\n".join(map(line_of, folders)) or f"{path}: no checkpoint")
    return DAMAGE if damaged else FINISHED


def all_folders(places: Places) -> list[CheckpointFolder]:
    """Return step folders, incomplete ones, and best/ with the leftovers of an interrupted swap."""
    folders = read_folders(places.checkpoints) + incomplete_folders(places.checkpoints)
    if places.run:
        folders += [read_folder(places.run / "best")] if (places.run / "best").is_dir() else []
        folders += [
            read_folder(rest, incomplete=True)
            for rest in sorted(places.run.glob(".*best.*"))
            if rest.is_dir()
        ]
    return folders


def line_of(folder: CheckpointFolder) -> str:
    """Return one line with condition and all problems."""
    if folder.problems:
        return f"{folder.path}: {folder.condition}: {'; '.join(folder.problems)}"
    size = format_size(folder.size)
    return f"{folder.path}: {folder.condition}, {len(folder.sizes)} files, {size}"
