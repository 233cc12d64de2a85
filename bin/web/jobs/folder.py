"""The folder of a job: its description, and what its process writes for whoever watches it.

The lock is held while a process of the job lives. All other files are replaced atomically.
"""

import contextlib
import fcntl
import json
import os
import re
import time
from pathlib import Path
from typing import IO

from visionloop.bin.reports.run_folder import read_object
from visionloop.bin.web.jobs.processes import Process, lock_holder
from visionloop.engine.checkpoints.files import replace_file
from visionloop.engine.types import JsonObject

EXIT_FILE = re.compile(r"exit-(\d+)\.json")


class JobFolder:
    """Files of one job. path: folder of the job."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.description, self.process_file = path / "job.json", path / "process.json"
        self.log, self.result, self.lock = path / "log.txt", path / "result.json", path / "lock"

    def exit_file(self, attempt: int) -> Path:
        return self.path / f"exit-{attempt}.json"

    def process(self) -> JsonObject | None:
        """Return attempt, pid, pgid, started and start_ticks of the newest start."""
        return read_json(self.process_file)

    def command(self) -> Process | None:
        """Return the process of the newest start's command, which may have ended."""
        content = self.process() or {}
        pid = content.get("pgid")
        return None if pid is None else Process(pid, content.get("command_start_ticks"))

    def exit_of(self, attempt: int) -> JsonObject | None:
        """Return code and time of the end of an attempt; None if it has not ended by itself."""
        return read_json(self.exit_file(attempt))

    def write_process(self, attempt: int, process: Process, command: Process | None) -> None:
        """Record that an attempt has begun. command: leader of its process group, once there."""
        before = self.process() or {}
        is_new = before.get("attempt") != attempt
        content = {
            "attempt": attempt,
            "pid": process.pid,
            "pgid": command and command.pid,
            "command_start_ticks": command and command.start_ticks,
            "started": time.time() if is_new else before["started"],
            "start_ticks": process.start_ticks,
            # where the attempt's own part of the log begins
            "log_offset": self.log_size() if is_new else before["log_offset"],
        }
        replace_file(self.process_file, json.dumps(content) + "\n")

    def write_exit(self, attempt: int, code: int) -> None:
        """Record how an attempt ended: its exit code, negative for a signal."""
        content = {"code": code, "ended": time.time()}
        replace_file(self.exit_file(attempt), json.dumps(content) + "\n", durable=True)

    def newest_attempt(self) -> int:
        """Return the number of the newest attempt that has begun, 0 without one."""
        numbers = [int((self.process() or {}).get("attempt", 0))]
        with contextlib.suppress(OSError):
            matches = map(EXIT_FILE.fullmatch, os.listdir(self.path))
            numbers += [int(match[1]) for match in matches if match]
        return max(numbers)

    def log_size(self) -> int:
        try:
            return self.log.stat().st_size
        except OSError:
            return 0

    def log_lines(self, number: int, limit: int = 64 << 10) -> list[str]:
        """Return the last lines of the newest attempt, of the last `limit` bytes at most."""
        start = max((self.process() or {}).get("log_offset", 0), self.log_size() - limit)
        try:
            with open(self.log, "rb") as file:
                file.seek(start)
                return log_text(file.read(limit)).splitlines()[-number:]
        except OSError:
            return []

    def holder(self) -> Process | None:
        """Return the process that runs the job now, None if none does."""
        return lock_holder(self.lock)

    def take_lock(self) -> IO[str] | None:
        """Return the held lock, None if another process has it. Closing the file releases it."""
        file = open(self.lock, "a")  # noqa: SIM115 - held as long as the process lives
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            return None
        return file


def log_text(content: bytes) -> str:
    """Return the text of a log. Of a line that was drawn over, a progress bar, the last state."""
    lines = content.decode("utf-8", "replace").replace("\r\n", "\n").split("\n")
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)


def read_json(path: Path) -> JsonObject | None:
    """Return a JSON object, None where there is no such file, or another or an empty one in it."""
    return read_object(path) or None
