"""A tmpfs that can be filled, where this process may mount one; elsewhere faults stand for it."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

MIB = 512


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Mount a tmpfs over `folder` within the block; yield whether that was allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={MIB}m", "soak", str(folder)]
    # a call that was killed leaves its disk mounted, which is used again
    if not folder.is_mount() and not is_mounted_by(command):
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def is_mounted_by(command: list[str]) -> bool:
    if shutil.which("mount") is None:
        return False
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@contextlib.contextmanager
def filled(folder: Path, spare: int) -> Iterator[None]:
    """Leave only `spare` bytes free on the disk of `folder` within the block."""
    filler = folder / "filler"
    with open(filler, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, shutil.disk_usage(folder).free - spare))
    try:
        yield
    finally:
        filler.unlink()
