"""A disk of memory that can be filled, where this process may mount one; elsewhere a full disk is played at the fault points."""

import contextlib
import os
import shutil
import subprocess

MIB = 512


@contextlib.contextmanager
def small_disk(folder):
    """Mounts a tmpfs over `folder` for as long as the block lasts; yields whether that was allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={MIB}m", "soak", str(folder)]
    # a call that was killed leaves its disk mounted: that one will do
    if not folder.is_mount() and (
        shutil.which("mount") is None
        or subprocess.run(command, capture_output=True, check=False).returncode
    ):
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


@contextlib.contextmanager
def filled(folder, spare):
    """Inside, the disk of `folder` has only `spare` bytes left."""
    filler = folder / "filler"
    with open(filler, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, shutil.disk_usage(folder).free - spare))
    try:
        yield
    finally:
        filler.unlink()
