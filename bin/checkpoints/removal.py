"""`checkpoint prune`: remove old, damaged and incomplete checkpoints while the run is not alive."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from visionloop.bin.checkpoints.folders import (
    VALID,
    CheckpointFolder,
    find_places,
    format_size,
    incomplete_folders,
    latest_valid_folder,
    read_folders,
)
from visionloop.bin.reports.run_folder import as_object, number_or_none, read_object
from visionloop.engine.checkpoints.folder import finish_rewrites, move_to_trash
from visionloop.engine.checkpoints.lock import RunLock
from visionloop.engine.errors import UserError


def run_prune(path: str, *, keep: int, dry_run: bool, keep_every: int | None = None) -> None:
    """Remove all but the latest `keep` valid checkpoints and the best one; print what was freed.

    Those at the multiples of `keep_every` stay too; None: of the run's own --keep-every.

    Damaged checkpoints do not count towards `keep` and are removed, except the best. Without a
    valid one nothing is removed, since parts of a damaged one may still be useful. Raises
    UserError while a run holds the lock.
    """
    places = find_places(path)
    if keep_every is None:
        keep_every = setting_of(places.run) if places.run else 0
    if dry_run:
        stale, retained = choose(places.checkpoints, keep, keep_every)
        for folder in stale:
            print(f"would remove {describe(folder)}")
        print(summary(stale, retained, "would be freed"))
        return
    try:
        with locked(places.run):
            # as at the start of a run: a folder whose rewriting was interrupted is needed
            finish_rewrites(places.checkpoints)
            stale, retained = choose(places.checkpoints, keep, keep_every)
            for folder in stale:
                remove(folder.path)
                print(f"removed {describe(folder)}")
    except OSError as error:
        raise UserError(
            f"{error.filename or path}: {error.strerror or error}", file=str(error.filename or path)
        ) from None
    print(summary(stale, retained, "freed"))


@contextmanager
def locked(run: Path | None) -> Iterator[None]:
    """Hold the lock of a run. A copy of checkpoints outside a run needs none."""
    if run is None:
        yield
        return
    lock = RunLock(run)
    try:
        yield
    finally:
        lock.release()


def setting_of(run: Path) -> int:
    """Return the --keep-every of a run, 0 where it cannot be read."""
    settings = as_object(read_object(run / "settings.json").get("settings"))
    return int(number_or_none(as_object(settings.get("keep_every")).get("value")) or 0)


def choose(
    checkpoints: Path, keep: int, keep_every: int = 0
) -> tuple[list[CheckpointFolder], list[CheckpointFolder]]:
    """Return (folders to remove, folders to keep), by step. Raises UserError if none is valid."""
    folders = read_folders(checkpoints)
    newest = latest_valid_folder(folders)
    if newest is None:
        why = "no valid checkpoint; nothing was removed" if folders else "no checkpoint in it"
        raise UserError(f"{checkpoints}: {why}", file=str(checkpoints), field="path")
    # the checkpoint that the run resumes from says which one is the best
    best_step = newest.best["step"] if newest.best else None
    steps = [folder.step for folder in folders if folder.condition == VALID and folder.step]
    kept = {*steps[-keep:], best_step}
    if keep_every:
        kept.update(step for step in steps if step % keep_every == 0)
    retained = [folder for folder in folders if folder.step in kept]
    return [folder for folder in folders if folder not in retained] + leftovers(
        checkpoints
    ), retained


def leftovers(checkpoints: Path) -> list[CheckpointFolder]:
    """Return incomplete folders, except those that the next start renames back."""
    incomplete = incomplete_folders(checkpoints)
    names = {folder.path.name for folder in incomplete}

    def is_needed(name: str) -> bool:
        target = name.removeprefix(".").removesuffix(".writing").removesuffix(".removed")
        return f".{target}.removed" in names and not (checkpoints / target).exists()

    return [folder for folder in incomplete if not is_needed(folder.path.name)]


def describe(folder: CheckpointFolder) -> str:
    """Return path, condition and size."""
    return f"{folder.path} ({folder.condition}, {format_size(folder.size)})"


def summary(stale: list[CheckpointFolder], retained: list[CheckpointFolder], freed: str) -> str:
    """Return the last line: bytes freed and steps kept."""
    total = sum(folder.size for folder in stale)
    steps = ", ".join(
        str(folder.step) + ("" if folder.condition == VALID else f" ({folder.condition})")
        for folder in retained
    )
    return f"{total} bytes {freed} ({format_size(total)}); kept: step {steps}"


def remove(folder: Path) -> None:
    """Rename, then delete: an interrupted removal must not leave what looks like a checkpoint."""
    shutil.rmtree(folder if folder.name.startswith(".") else move_to_trash(folder))
