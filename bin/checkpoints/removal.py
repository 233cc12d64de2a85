"""`checkpoint prune`: old, damaged and half-written checkpoints of a run, removed while the run is not going on."""

import shutil
from contextlib import contextmanager

from visionloop.bin.checkpoints.folders import (
    WHOLE,
    find_places,
    half_written_folders,
    latest_valid_folder,
    read_folders,
    show_size,
)
from visionloop.engine.checkpoints.folder import finish_rewrites, move_to_trash
from visionloop.engine.checkpoints.lock import RunLock
from visionloop.engine.errors import UserError


def run_prune(path, *, keep, dry_run):
    """Remove all but the newest `keep` whole checkpoints and the best one, and say which and how many bytes that freed.

    A damaged one does not count among those that are kept and is removed, unless it is the best.
    Without a whole one nothing is removed: something may yet be saved from the damaged. Raises
    UserError while a run holds the lock.
    """
    places = find_places(path)
    if dry_run:
        stale, kept = choose(places.checkpoints, keep)
        for found in stale:
            print(f"would remove {describe(found)}")
        print(summary(stale, kept, "would be freed"))
        return
    try:
        with locked(places.run):
            # as at the start of a run: a folder whose rewriting was cut short is no rubbish
            finish_rewrites(places.checkpoints)
            stale, kept = choose(places.checkpoints, keep)
            for found in stale:
                remove(found.path)
                print(f"removed {describe(found)}")
    except OSError as error:
        raise UserError(
            f"{error.filename or path}: {error.strerror or error}", file=str(error.filename or path)
        ) from None
    print(summary(stale, kept, "freed"))


@contextmanager
def locked(run):
    """Alone with a run; a copy of checkpoints that belongs to none needs no lock."""
    if run is None:
        yield
        return
    lock = RunLock(run)
    try:
        yield
    finally:
        lock.release()


def choose(checkpoints, keep):
    """(folders to remove, folders that stay), by step. Raises UserError where none is whole."""
    folders = read_folders(checkpoints)
    newest = latest_valid_folder(folders)
    if newest is None:
        why = "none of them is whole; nothing was removed" if folders else "no checkpoint in it"
        raise UserError(f"{checkpoints}: {why}", file=str(checkpoints), field="path")
    # what the run goes on from says which one is the best
    best_step = newest.best["step"] if newest.best else None
    newest_steps = [found.step for found in folders if found.condition == WHOLE][-keep:]
    kept = [found for found in folders if found.step in (*newest_steps, best_step)]
    return [found for found in folders if found not in kept] + rubbish(checkpoints), kept


def rubbish(checkpoints):
    """Half-written folders, but for those that the next start gives their name back."""
    found = half_written_folders(checkpoints)
    names = {one.path.name for one in found}

    def is_needed(name):
        target = name.removeprefix(".").removesuffix(".writing").removesuffix(".removed")
        return f".{target}.removed" in names and not (checkpoints / target).exists()

    return [one for one in found if not is_needed(one.path.name)]


def describe(found):
    return f"{found.path} ({found.condition}, {show_size(found.size)})"


def summary(stale, kept, freed):
    """The last line: what was gained and what stays."""
    total = sum(found.size for found in stale)
    stays = ", ".join(
        str(found.step) + ("" if found.condition == WHOLE else f" ({found.condition})")
        for found in kept
    )
    return f"{total} bytes {freed} ({show_size(total)}); kept: step {stays}"


def remove(folder):
    """Renamed first, as in the run: a removal that is cut short must not leave a folder that looks like a checkpoint."""
    shutil.rmtree(folder if folder.name.startswith(".") else move_to_trash(folder))
