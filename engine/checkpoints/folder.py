"""Checkpoint folders on disk: atomic writing, listing, choice of the newest valid one, removal.

A folder holds safetensors and JSON files and a manifest.json with their hashes. It is written under
another name, synced, and renamed when complete: a crash at any moment leaves older folders valid.
The content of a checkpoint is described in save.py.
"""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from visionloop.engine.checkpoints.files import (
    fsync_tree,
    move_to_trash,
    replace_folder,
    write_json,
)
from visionloop.engine.checkpoints.manifest import MANIFEST, Files, make_manifest, problems
from visionloop.engine.system.fault_injection import reach
from visionloop.engine.types import JsonObject

STEP_FOLDER = re.compile(r"step_(\d{8,})$")


def step_folder_name(step: int) -> str:
    """Return the name of the checkpoint folder of a step, for example step_00000200."""
    return f"step_{step:08d}"


def write_folder(
    target: Path, fill: Callable[[Path], Files | None], *, is_prepared: bool = False
) -> None:
    """Call fill(folder) on a temporary sibling, add its manifest, sync it, rename it to `target`.

    An existing target is replaced; `finish_rewrite` completes a replacement that was cut short.

    Args:
        target: the folder.
        fill: writes into the sibling; returns what the manifest says of files that it has hashed.
        is_prepared: the sibling exists already, and others may be writing into it.
    """
    with replace_folder(target, is_prepared=is_prepared) as temporary:
        reach("after open", temporary)
        described = fill(temporary)
        reach("before the manifest", temporary)
        write_json(temporary / MANIFEST, make_manifest(temporary, described))
        reach("before fsync", temporary)
        fsync_tree(temporary)
        reach("before rename", temporary)
    reach("after rename", target)


def step_folders(checkpoints: Path, *, hidden: str | None = None) -> list[tuple[int, Path]]:
    """List (step, folder) by step, valid or not.

    hidden: the suffix of folders that are being written (".writing") or removed (".removed"), to
    list those instead.
    """
    if not checkpoints.is_dir():
        return []
    folders = []
    for path in checkpoints.glob(f".*{hidden}") if hidden else checkpoints.iterdir():
        name = path.name.removeprefix(".").removesuffix(hidden) if hidden else path.name
        match = STEP_FOLDER.match(name)
        if match:
            folders.append((int(match[1]), path))
    return sorted(folders)


def read_state(folder: Path) -> JsonObject:
    """Read the state.json of a checkpoint folder."""
    state: JsonObject = json.loads((folder / "state.json").read_text())
    return state


def latest_valid(
    checkpoints: Path, warn: Callable[[str], object] = lambda message: None
) -> Path | None:
    """Return the newest folder that matches its manifest, or None; warn of damaged ones."""
    for _, folder in reversed(step_folders(checkpoints)):
        damage = problems(folder)
        if not damage:
            return folder
        warn(f"{folder}: damaged, skipped ({damage[0]})")
    return None


def finish_rewrites(checkpoints: Path) -> None:
    """At start-up: rename a step folder whose rewriting was cut short between its two renames."""
    for _, stale in step_folders(checkpoints, hidden=".removed"):
        target = checkpoints / stale.name.removeprefix(".").removesuffix(".removed")
        written = checkpoints / f".{target.name}.writing"
        if not target.exists():
            os.rename(written if written.is_dir() and not problems(written) else stale, target)


def finish_rewrite(target: Path) -> None:
    """At start-up: complete the rewriting of one folder, or undo it, and remove what is left of it.

    Where `target` is missing, the new folder takes its place if it is complete, else the old one.
    """
    new, old = (target.with_name(f".{target.name}.{suffix}") for suffix in ("writing", "removed"))
    if not target.exists():
        for candidate in (new, old):
            if candidate.is_dir() and not problems(candidate):
                os.rename(candidate, target)
                break
    for rest in (new, old):
        shutil.rmtree(rest, ignore_errors=True)


def prune(
    checkpoints: Path,
    keep: int,
    best_step: int | None,
    newest: int | None = None,
    keep_every: int = 0,
) -> None:
    """Keep the newest `keep` checkpoints and the best; remove older and half-written folders.

    Args:
        checkpoints: the folder of checkpoints.
        keep: how many of the newest to keep.
        best_step: the step of the best score, or None.
        newest: the step just written, None for the newest there is. Folders beyond it are damaged,
            since the run would have resumed from there, and must not push out a valid one.
        keep_every: steps whose multiples are kept too; 0: none.
    """
    steps = [step for step, _ in step_folders(checkpoints) if newest is None or step <= newest]
    retained = {*steps[-keep:], best_step}
    if keep_every:
        retained.update(step for step in steps if step % keep_every == 0)
    for step, folder in step_folders(checkpoints):
        if step not in retained:
            shutil.rmtree(move_to_trash(folder), ignore_errors=True)
    for rest in checkpoints.glob(".step_*"):
        shutil.rmtree(rest, ignore_errors=True)
