"""Processes of this machine: who holds a lock, whose descendants live, and signals to them.

A pid is compared with its start time and signalled through a handle of the kernel, so that a
process that got a freed pid is never hit. Without /proc (macOS) the pid alone must do.
"""

import contextlib
import ctypes
import fcntl
import os
import signal
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
# struct flock: type, whence, start, length, pid
FLOCK = "hhqqi" if sys.platform == "linux" else "qqihh"
MOST_PASSES = 20  # over the processes, until a tree that grows is frozen


@dataclass(frozen=True)
class Process:
    """A process. start_ticks: since the machine was started; None without /proc."""

    pid: int
    start_ticks: int | None


@dataclass(frozen=True)
class Stat:
    """Part of /proc/PID/stat. state: "Z" is a process that has ended and is not waited for yet."""

    state: str
    parent: int
    start_ticks: int


def read_stat(pid: int) -> Stat | None:
    """Return state, parent and start time of a process, None if there is none (or no /proc)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # the name before the last parenthesis may hold anything
    fields = text.rpartition(")")[2].split()
    return Stat(fields[0], int(fields[1]), int(fields[19]))


def process_of(pid: int) -> Process:
    """Return the process that has this pid now."""
    stat = read_stat(pid)
    return Process(pid, stat.start_ticks if stat else None)


def is_alive(process: Process) -> bool:
    """Return whether the same process still runs."""
    stat = read_stat(process.pid)
    return stat is not None and stat.state != "Z" and stat.start_ticks == process.start_ticks


def lock_holder(path: Path) -> Process | None:
    """Return the process that holds the lock of a file (fcntl.lockf); None: nobody does.

    The lock is not touched, so a process that takes it at this moment gets it. The pid is 0 for a
    holder that this process cannot see, in another container.
    """
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        pid = _holder_pid(file)
        while pid is not None:
            process = process_of(pid) if pid > 0 else Process(0, None)
            again = _holder_pid(file)
            if again == pid:  # the start time is that of the holder
                return process
            pid = again
        return None
    finally:
        os.close(file)


def _holder_pid(file: int) -> int | None:
    if sys.platform == "linux":
        asked = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = struct.unpack(FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, asked))
    else:
        asked = struct.pack(FLOCK, 0, 0, 0, fcntl.F_WRLCK, os.SEEK_SET)
        _, _, pid, kind, _ = struct.unpack(FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, asked))
    return None if kind == fcntl.F_UNLCK else max(0, int(pid))


def send_signal(process: Process, number: int) -> bool:
    """Send a signal to a process. Returns False if it has ended, also if its pid is used again."""
    if process.pid <= 1:
        return False
    with contextlib.suppress(ProcessLookupError):
        if sys.platform != "linux":
            os.kill(process.pid, number)
            return True
        handle = os.pidfd_open(process.pid)
        try:
            # the handle is of one process: if the start time fits now, the signal reaches it
            if is_alive(process):
                signal.pidfd_send_signal(handle, number)
                return True
        finally:
            os.close(handle)
    return False


def descendants(pid: int) -> list[Process]:
    """Return the living children of a process, their children and so on, without itself.

    Empty for the processes 0 and 1, the ancestors of all others.
    """
    if pid <= 1:
        return []
    children: dict[int, list[Process]] = {}
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc"):
            stat = read_stat(int(name)) if name.isdigit() else None
            if stat is not None and stat.state != "Z":
                children.setdefault(stat.parent, []).append(Process(int(name), stat.start_ticks))
    found = list(children.get(pid, ()))
    for process in found:  # grows while it is walked
        found += children.get(process.pid, ())
    return found


def kill_all(root: int, more: Iterable[Process] = (), *, group: int | None = None) -> None:
    """Kill all descendants of a process, and `more` with theirs. `root` itself is left alone.

    Each is frozen first: none can start another while the list is made.

    Args:
        root: pid of the process.
        more: further processes.
        group: process group, for systems without /proc.
    """
    frozen: set[Process] = set()
    for _ in range(MOST_PASSES):
        tree = {*more, *descendants(root)}
        tree |= {child for one in more for child in descendants(one.pid)}
        if tree <= frozen:
            break
        for process in tree - frozen:
            send_signal(process, signal.SIGSTOP)
        frozen |= tree
    for process in frozen:
        send_signal(process, signal.SIGKILL)
    if sys.platform != "linux" and group is not None and group > 1:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


def become_subreaper() -> None:
    """Become the parent of all descendants whose own parent ends, where the kernel can (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def torchrun_of(process: Process) -> Process | None:
    """Return the torchrun that has started a process, None if another program has."""
    stat = read_stat(process.pid)
    if stat is None:
        return None
    try:
        words = Path(f"/proc/{stat.parent}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return None
    is_torchrun = any(
        word == b"torch.distributed.run" or word.rsplit(b"/", 1)[-1] == b"torchrun"
        for word in words[:4]
    )
    return process_of(stat.parent) if is_torchrun else None
