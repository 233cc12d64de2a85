"""Checkpoint folders: safetensors and json, hashed, renamed when whole. A crash at any moment leaves the older ones valid."""

import errno
import fcntl
import json
import math
import os
import re
import shutil
from pathlib import Path

from visionloop.engine.errors import UserError
from visionloop.engine.faults import reach
from visionloop.engine.manifest import MANIFEST, make_manifest, problems

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
        shutil.rmtree(temporary, ignore_errors=True)  # on a full disk it would be in the way of what comes next
        raise
    doomed = set_aside(target) if target.exists() else None
    os.rename(temporary, target)
    reach("after rename", target)
    fsync(target.parent)
    if doomed:
        shutil.rmtree(doomed, ignore_errors=True)


def set_aside(folder):
    """Rename a folder that is to be removed: half a removal must not look like a checkpoint. Returns the new path."""
    doomed = folder.with_name(f".{folder.name}.removed")
    shutil.rmtree(doomed, ignore_errors=True)  # of a removal that was cut short: while `folder` is there, nobody needs it
    os.rename(folder, doomed)
    return doomed


def fsync(path):
    """Force a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path, content):
    """Keys sorted, so that equal content is equal bytes."""
    path.write_text(json.dumps(finite(content), indent=1, sort_keys=True) + "\n")


def finite(value):
    """The same with null for inf and nan, which json does not have."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def replace_file(path, text):
    """Write a small file so that readers see the old or the new one, never half."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def step_folders(checkpoints, *, hidden=None):
    """[(step, folder)] by step, whole or not. hidden: the suffix of folders on their way in or out, instead."""
    if not checkpoints.is_dir():
        return []
    paths = checkpoints.glob(f".*{hidden}") if hidden else checkpoints.iterdir()
    found = [(STEP_FOLDER.match(path.name.removeprefix(".").removesuffix(hidden) if hidden else path.name), path) for path in paths]
    return sorted((int(match[1]), path) for match, path in found if match)


def read_state(folder):
    """The state.json of a checkpoint folder."""
    return json.loads((folder / "state.json").read_text())


def newest_whole(checkpoints, say=lambda message: None):
    """The newest folder whose manifest holds, or None; what is passed over is said."""
    for _, folder in reversed(step_folders(checkpoints)):
        wrong = problems(folder)
        if not wrong:
            return folder
        say(f"{folder}: damaged, passed over ({wrong[0]})")
    return None


def finish_rewrites(checkpoints):
    """At start-up: a step folder whose rewriting was cut short between its two renames gets its name back."""
    for _, doomed in step_folders(checkpoints, hidden=".removed"):
        target = checkpoints / doomed.name.removeprefix(".").removesuffix(".removed")
        written = checkpoints / f".{target.name}.writing"
        if not target.exists():
            os.rename(written if written.is_dir() and not problems(written) else doomed, target)


def prune(checkpoints, keep, best_step, newest=None):
    """Keep the newest `keep` and the best; remove older ones and half-written folders.

    newest: the step just written; what is beyond it is damaged, since the run would have gone on from there, and must not push out a
    whole one. None: the newest there is.
    """
    steps = [step for step, _ in step_folders(checkpoints) if newest is None or step <= newest]
    kept = {*steps[-keep:], best_step}
    for step, folder in step_folders(checkpoints):
        if step not in kept:
            shutil.rmtree(set_aside(folder), ignore_errors=True)
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


class RunLock:
    """An exclusive lock on a run's folder, held until the process ends or `release` is called."""

    def __init__(self, output: Path):
        output.mkdir(parents=True, exist_ok=True)
        self._file = open(output / ".lock", "w")  # noqa: SIM115 - held open as long as the lock
        try:
            # lockf, not flock: loader workers are forked and would keep a flock alive after this process is killed
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                why = f"the file system cannot lock .lock there ({error.strerror}), which keeps two runs apart"
                raise UserError(f"--output {output}: {why}", code="no_locks", file=str(output), field="output") from None
            raise UserError(f"--output {output}: another process is running there", code="locked", file=str(output)) from None

    def release(self):
        self._file.close()

    def discard(self):
        """Release it, and take the folder away where nothing but the lock is in it."""
        path = Path(self._file.name)
        if os.listdir(path.parent) == [path.name]:
            path.unlink()
            path.parent.rmdir()
        self.release()
