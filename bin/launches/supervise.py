"""A process that is asked to stop once, and waited for; works as process 1 of a container."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType


def supervise(command: Sequence[str], name: str = "visionloop-launch") -> tuple[int, bool]:
    """Run a command to its end; pass the first SIGTERM or SIGINT on to it as SIGTERM.

    A second SIGTERM would make torchrun leave its processes. The command runs in a session of its
    own: Ctrl-C in a terminal reaches it through here alone. Children that other processes leave
    behind are reaped, because a container may have no other process 1. name: of this program, for
    its message.

    Returns:
        (exit code, negative for a signal; True if it was asked to stop).
    """
    was_stopped = False
    process: subprocess.Popen[bytes] | None = None

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal was_stopped
        if not was_stopped:
            print(f"{name}: asked to stop; waiting for the checkpoint", file=sys.stderr)
            was_stopped = True
            if process is not None:
                send_stop(process)

    handled = (signal.SIGTERM, signal.SIGINT)
    previous = {number: signal.signal(number, stop) for number in handled}
    try:
        process = subprocess.Popen(command, start_new_session=True)
        if was_stopped:  # while it was being started
            send_stop(process)
        return wait_for(process), was_stopped
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def send_stop(process: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM to a process that may have ended."""
    with contextlib.suppress(ProcessLookupError):
        # not Popen.send_signal, which would reap the process
        os.kill(process.pid, signal.SIGTERM)


def wait_for(process: subprocess.Popen[bytes]) -> int:
    """Reap children until this one has ended; return its exit code."""
    while True:
        pid, status = os.wait()
        if pid == process.pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return process.returncode
