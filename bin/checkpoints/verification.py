"""`checkpoint verify`: whether every file of every checkpoint is as it was written."""

import json

from visionloop.bin.checkpoints.folders import (
    DAMAGED,
    existing_folder,
    find_places,
    half_written_folders,
    is_checkpoint,
    read_folder,
    read_folders,
    show_size,
)
from visionloop.engine.errors import FINISHED

DAMAGE = 1  # the exit code


def run_verify(path, *, as_json):
    """Print a line, or an object in a list, for each folder. Returns the exit code: DAMAGE when one is damaged.

    What is half-written is no damage: the run removes it. A best/ has a manifest like a step folder, and without it is damaged too.
    """
    folder = existing_folder(path)
    found = [read_folder(folder)] if is_checkpoint(folder) else all_folders(find_places(path))
    damaged = sum(one.condition == DAMAGED for one in found)
    if as_json:
        rows = [{"folder": str(one.path), "condition": one.condition, "problems": one.problems} for one in found]
        print(json.dumps({"damaged": damaged, "folders": rows}))
    else:
        print("\n".join(map(as_line, found)) or f"{path}: no checkpoint")
    return DAMAGE if damaged else FINISHED


def all_folders(places):
    """Step folders, half-written ones, and best/ with what a swap that was cut short left of it."""
    found = read_folders(places.checkpoints) + half_written_folders(places.checkpoints)
    if places.run:
        found += [read_folder(places.run / "best")] if (places.run / "best").is_dir() else []
        found += [read_folder(rest, half_written=True) for rest in sorted(places.run.glob(".*best.*")) if rest.is_dir()]
    return found


def as_line(found):
    """One line, with all that is wrong."""
    if found.problems:
        return f"{found.path}: {found.condition}: {'; '.join(found.problems)}"
    return f"{found.path}: {found.condition}, {len(found.sizes)} files, {show_size(found.size)}"
