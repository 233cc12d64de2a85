"""Shared memory of the system, through which data workers pass their batches. No torch here."""

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator

from visionloop.engine.errors import UserError

CODE = "no_shared_memory"  # of the error that a run ends with
FOLDER = "/dev/shm"  # of Linux; other systems have none
GIB = 2**30
# GiB; a container without --shm-size has 1/16
LOW_SHARED_MEMORY = 1
# parts of the errors that torch raises, in RuntimeErrors that end with the number of the system
TOO_MANY = "Too many open files"
TORCH_TEXTS = ("shared memory", "</torch_", "unable to mmap", TOO_MANY)
MORE_SPACE = "start the container with --shm-size 8g, or use --workers 0"
MORE_FILES = "raise the limit with ulimit -n 65536, or use fewer --workers"


def shared_memory_gib(folder: str = FOLDER) -> float | None:
    """Return the size of the shared memory in GiB, None where the system has no such folder."""
    return shutil.disk_usage(folder).total / GIB if os.path.isdir(folder) else None


def low_shared_memory(folder: str = FOLDER) -> str | None:
    """Return a warning where the shared memory may be too small for workers, else None."""
    size = shared_memory_gib(folder)
    if size is None or size >= LOW_SHARED_MEMORY:
        return None
    return f"{folder}: {_text(size)} of shared memory are little for workers; {MORE_SPACE}"


def error_number(error: BaseException) -> int | None:
    """Return the system's number of an error of shared memory, None for any other error.

    error: of torch, or of the system that names no file, as semaphores and pipes raise it.
    """
    if isinstance(error, OSError):
        return error.errno if error.filename is None else None
    text = str(error)
    if not isinstance(error, RuntimeError) or not any(part in text for part in TORCH_TEXTS):
        return None
    number = re.search(r"\((\d+)\)\s*$", text.splitlines()[0])
    return int(number[1]) if number else errno.EMFILE if TOO_MANY in text else errno.ENOSPC


def shared_memory_problem(number: int) -> str:
    """Return the reason and what to do, for the number of an error of shared memory."""
    if number in (errno.EMFILE, errno.ENFILE):
        return f"too many files are open for workers to pass batches on; {MORE_FILES}"
    if number in (errno.ENOSPC, errno.ENOMEM):
        size = shared_memory_gib()
        full = "is full" if size is None else f"of {_text(size)} is full"
        return f"the shared memory {full}, workers cannot pass batches on; {MORE_SPACE}"
    return f"workers cannot use the shared memory ({os.strerror(number)}); use --workers 0"


@contextlib.contextmanager
def shared_memory_errors() -> Iterator[None]:
    """Turn an error of shared memory inside the block, which starts workers, into a UserError."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        number = error_number(error)
        if number is None:
            raise
        why = shared_memory_problem(number)
        raise UserError(f"{FOLDER}: {why}", code=CODE, field="workers") from None


def _text(gib: float) -> str:
    return f"{gib:.3g} GiB" if gib >= 1 else f"{1024 * gib:.3g} MiB"
