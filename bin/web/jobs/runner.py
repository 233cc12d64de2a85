"""Run one attempt of a job, as a process of its own that outlives the server.

    python -m visionloop.bin.web.jobs.runner FOLDER ATTEMPT

It may be started any number of times for the same attempt: only the first one runs the command.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from visionloop.bin.web.jobs.folder import JobFolder, read_json
from visionloop.bin.web.jobs.processes import (
    Process,
    become_subreaper,
    process_of,
    send_signal,
)
from visionloop.engine.types import JsonObject

NO_PROGRAM = 127  # exit code, as that of a shell
CANNOT_START = 126
GROUP_SECONDS = 0.2


class StopRequest:
    """SIGTERM to this process: it is passed on to the command once.

    Not to the command's own children, which end with it, and no second time: that would make
    torchrun leave its processes behind.
    """

    def __init__(self) -> None:
        self.requested = False
        self._child: Process | None = None

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        if not self.requested:
            self.requested = True
            self._pass_on()

    def watch(self, pid: int) -> None:
        """Pass the request on to this process, also one that came before it was there."""
        self._child = process_of(pid)
        if self.requested:
            self._pass_on()

    def _pass_on(self) -> None:
        if self._child is not None:
            send_signal(self._child, signal.SIGTERM)


def run_attempt(path: Path, attempt: int) -> None:
    """Run the command of the job's launch, and end when the last of its descendants has ended."""
    folder, stop = JobFolder(path), StopRequest()
    signal.signal(signal.SIGTERM, stop)
    lock = folder.take_lock()
    if lock is None or folder.newest_attempt() >= attempt:
        return
    description = read_json(folder.description)
    if description is None:
        raise SystemExit(f"error: {folder.description}: cannot be read")
    become_subreaper()
    this = process_of(os.getpid())
    # before the command: from here on this attempt counts as started, whatever happens
    folder.write_process(attempt, this, None)
    try:
        child = start_command(folder, description)
    except (OSError, ValueError) as error:  # ValueError: a word that no argument can be
        why = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else error
        print(f"error: {why}", file=sys.stderr, flush=True)
        is_absent = isinstance(error, FileNotFoundError)
        folder.write_exit(attempt, NO_PROGRAM if is_absent else CANNOT_START)
        return
    stop.watch(child.pid)
    folder.write_process(attempt, this, process_of(child.pid))
    folder.write_exit(attempt, wait_for_all(child.pid))


def start_command(folder: JobFolder, description: JsonObject) -> subprocess.Popen[bytes]:
    """Start the command in its own process group, with its output in the job's files.

    A job with a result writes it to stdout, which is then not a part of the log.
    """
    launch = description["launch"]
    for name, text in launch["files"].items():
        target = folder.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    with (
        open(folder.log, "ab") as log,
        open(folder.result if description["has_result"] else folder.log, "ab") as output,
    ):
        if description["has_result"]:
            output.truncate(0)
        return subprocess.Popen(
            launch["command"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=log,
            cwd=launch["folder"] or folder.path,
            env=os.environ | launch["environment"],
            process_group=0,
        )


def wait_for_all(command: int) -> int:
    """Wait for a process and for all its descendants. Returns the exit code of the process."""
    code = None
    while True:
        try:
            pid, status = os.wait()
        except ChildProcessError:
            break
        if pid == command:
            code = os.waitstatus_to_exitcode(status)
    assert code is not None, "the command was waited for elsewhere"
    while sys.platform != "linux" and is_group_alive(command):  # no subreaper there
        time.sleep(GROUP_SECONDS)
    return code


def is_group_alive(group: int) -> bool:
    """Return whether a process group has a process."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


if __name__ == "__main__":
    run_attempt(Path(sys.argv[1]), int(sys.argv[2]))
