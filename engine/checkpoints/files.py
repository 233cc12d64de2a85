"""Atomic writes: a reader sees the old or the new file or folder, never a partial one."""

import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def replace_file(path: Path, content: str | bytes, *, durable: bool = False) -> None:
    """Write a small file under a temporary name and rename it. On OSError `path` is unchanged.

    Args:
        path: the file.
        content: all of it.
        durable: return only when the file is on the disk.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        if durable:
            fsync(temporary)
        os.replace(temporary, path)
        if durable:
            fsync(path.parent)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def replace_folder(
    target: Path, *, suffix: str = "writing", is_prepared: bool = False
) -> Iterator[Path]:
    """Yield a temporary folder next to `target`; rename it to `target` if the block succeeds.

    The parents of `target` are created. When the block raises, the new folder is removed and
    `target` is unchanged.

    Args:
        target: a folder that exists already is replaced, see `move_folder`.
        suffix: the new folder is called .NAME.SUFFIX; one that an earlier write has left under this
            name is removed first. Where several processes may write the same target, pass
            different suffixes, such as the process id.
        is_prepared: the temporary folder is there already, with content to keep.
    """
    temporary = target.with_name(f".{target.name}.{suffix}")
    if not is_prepared:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    try:
        yield temporary
        move_folder(temporary, target)
    except BaseException:
        # on a full disk it would take the space that later writes need
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def move_folder(source: Path, target: Path, *, trash: Path | None = None) -> None:
    """Rename `source` to `target`; a folder that is there already is moved to the trash first.

    After a crash between the two renames the complete old folder is in the trash.

    Args:
        source: the new folder, on the file system of `target`.
        target: its new path.
        trash: path of the old folder until it is removed (default: .NAME.removed next to `target`).
    """
    trash = trash or trash_of(target)
    replaces = target.exists()
    if replaces:
        move_to_trash(target, trash)
    try:
        os.rename(source, target)
    except OSError:
        if replaces:
            os.rename(trash, target)
        raise
    fsync(target.parent)
    shutil.rmtree(trash, ignore_errors=True)  # also the trash of an earlier, interrupted move


def move_to_trash(folder: Path, trash: Path | None = None) -> Path:
    """Rename a folder before its removal, so that a partly removed folder never looks complete.

    Args:
        folder: the folder.
        trash: its new path on the same file system (default: .NAME.removed next to it).

    Returns:
        The new path.
    """
    trash = trash or trash_of(folder)
    # left by an interrupted removal; not needed while `folder` exists
    shutil.rmtree(trash, ignore_errors=True)
    os.rename(folder, trash)
    return trash


def trash_of(folder: Path) -> Path:
    """Return the path that a folder is renamed to before its removal."""
    return folder.with_name(f".{folder.name}.removed")


def fsync(path: Path) -> None:
    """Force a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fsync_tree(folder: Path) -> None:
    """Force a folder and all that is in it to the disk."""
    for path in [*folder.rglob("*"), folder]:
        fsync(path)


def write_json(path: Path, content: object) -> None:
    """Write JSON with sorted keys, so that equal content is equal bytes. Not atomic."""
    path.write_text(json.dumps(finite(content), indent=1, sort_keys=True) + "\n")


def finite(value: object) -> object:
    """Return the same value with None (JSON null) for inf and nan, which JSON does not have."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
