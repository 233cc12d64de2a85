"""Checkpoint folders: safetensors and json, hashed, renamed when whole. A crash at any moment leaves the older ones valid."""

import json
import os
import re
import shutil

from visionloop.engine.checkpoints.files import fsync, write_json
from visionloop.engine.checkpoints.manifest import MANIFEST, make_manifest, problems
from visionloop.engine.system.fault_injection import reach

STEP_FOLDER = re.compile(r"step_(\d{8,})$")


def step_folder_name(step):
    """The name of a checkpoint folder."""
    return f"step_{step:08d}"


def write_folder(target, fill):
    """Call fill(folder) on a temporary sibling, add manifest.json, fsync everything, rename to `target`.

    An existing target is replaced: it can only be an older write of the same step.
    """
    temporary = target.with_name(f".{target.name}.writing")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        reach("after open", temporary)
        fill(temporary)
        reach("before the manifest", temporary)
        write_json(temporary / MANIFEST, make_manifest(temporary))
        reach("before fsync", temporary)
        for path in [*temporary.rglob("*"), temporary]:
            fsync(path)
        reach("before rename", temporary)
    except Exception:
        shutil.rmtree(
            temporary, ignore_errors=True
        )  # on a full disk it would be in the way of what comes next
        raise
    stale = move_to_trash(target) if target.exists() else None
    os.rename(temporary, target)
    reach("after rename", target)
    fsync(target.parent)
    if stale:
        shutil.rmtree(stale, ignore_errors=True)


def move_to_trash(folder):
    """Rename a folder that is to be removed: half a removal must not look like a checkpoint. Returns the new path."""
    stale = folder.with_name(f".{folder.name}.removed")
    shutil.rmtree(
        stale, ignore_errors=True
    )  # of a removal that was cut short: while `folder` is there, nobody needs it
    os.rename(folder, stale)
    return stale


def step_folders(checkpoints, *, hidden=None):
    """[(step, folder)] by step, whole or not. hidden: the suffix of folders on their way in or out, instead."""
    if not checkpoints.is_dir():
        return []
    paths = checkpoints.glob(f".*{hidden}") if hidden else checkpoints.iterdir()
    found = [
        (
            STEP_FOLDER.match(
                path.name.removeprefix(".").removesuffix(hidden) if hidden else path.name
            ),
            path,
        )
        for path in paths
    ]
    return sorted((int(match[1]), path) for match, path in found if match)


def read_state(folder):
    """The state.json of a checkpoint folder."""
    return json.loads((folder / "state.json").read_text())


def latest_valid(checkpoints, say=lambda message: None):
    """The newest folder whose manifest holds, or None; what is passed over is said."""
    for _, folder in reversed(step_folders(checkpoints)):
        wrong = problems(folder)
        if not wrong:
            return folder
        say(f"{folder}: damaged, passed over ({wrong[0]})")
    return None


def finish_rewrites(checkpoints):
    """At start-up: a step folder whose rewriting was cut short between its two renames gets its name back."""
    for _, stale in step_folders(checkpoints, hidden=".removed"):
        target = checkpoints / stale.name.removeprefix(".").removesuffix(".removed")
        written = checkpoints / f".{target.name}.writing"
        if not target.exists():
            os.rename(written if written.is_dir() and not problems(written) else stale, target)


def prune(checkpoints, keep, best_step, newest=None):
    """Keep the newest `keep` and the best; remove older ones and half-written folders.

    newest: the step just written; what is beyond it is damaged, since the run would have gone on
    from there, and must not push out a whole one. None: the newest there is.
    """
    steps = [step for step, _ in step_folders(checkpoints) if newest is None or step <= newest]
    kept = {*steps[-keep:], best_step}
    for step, folder in step_folders(checkpoints):
        if step not in kept:
            shutil.rmtree(move_to_trash(folder), ignore_errors=True)
    for rest in checkpoints.glob(".step_*"):
        shutil.rmtree(rest, ignore_errors=True)


def swap_best(best, fill):
    """Write a new best/ beside the old one and swap the two; `finish_swap` ends a swap that was cut short."""
    new, old = best.with_name(f".{best.name}.new"), best.with_name(f".{best.name}.old")
    finish_swap(best)
    write_folder(new, fill)
    if best.exists():
        os.rename(best, old)
    os.rename(new, best)
    shutil.rmtree(old, ignore_errors=True)
    fsync(best.parent)


def finish_swap(best):
    """At start-up: a whole .best.new whose rename was cut short takes its place; else the old one returns."""
    new, old = best.with_name(f".{best.name}.new"), best.with_name(f".{best.name}.old")
    if not best.exists():
        for candidate in (new, old):
            if candidate.is_dir() and not problems(candidate):
                os.rename(candidate, best)
                break
    for rest in (new, old, new.with_name(f".{new.name}.writing")):
        shutil.rmtree(rest, ignore_errors=True)
