"""Checks of the checkpoints of a run that was stopped, each in a process of its own."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from visionloop.bin.web.jobs.outcome import job_error
from visionloop.bin.web.jobs.spec import python_command
from visionloop.engine.types import JsonObject

MOST_AT_ONCE = 2  # a server without its database finds all jobs that were ever stopped


@dataclass(frozen=True)
class Verification:
    """A check that has ended. error: None when every file is as it was written."""

    error: JsonObject | None


class Verifier:
    """Runs `checkpoint.py verify RUN`, which compares every file with its hash."""

    def __init__(self) -> None:
        self._processes: dict[str, tuple[subprocess.Popen[bytes], IO[bytes]]] = {}

    def check(self, job_id: str, run: Path) -> Verification | None:
        """Return the result for a run that has ended; None while it is checked, by repeated calls.

        Args:
            job_id: the job of the run.
            run: folder of the run.
        """
        if not (run / "checkpoints").is_dir():
            return Verification(None)
        if job_id not in self._processes:
            if len(self._processes) >= MOST_AT_ONCE:
                return None
            output: IO[bytes] = TemporaryFile()  # noqa: SIM115 - until it is read
            process = subprocess.Popen(
                python_command("checkpoint", "verify", str(run), "--json"),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=run,
                start_new_session=True,
            )
            self._processes[job_id] = process, output
        process, output = self._processes[job_id]
        code = process.poll()
        if code is None:
            return None
        del self._processes[job_id]
        with output:
            output.seek(0)
            return Verification(error_of(code, output.read(), run))


def error_of(code: int, output: bytes, run: Path) -> JsonObject | None:
    """Return what `verify --json` has found wrong, None if nothing."""
    if code == 0:
        return None
    try:
        rows = json.loads(output)["folders"]
        damaged = next(row for row in rows if row["problems"])
    except (ValueError, KeyError, TypeError, StopIteration):
        text = output.decode("utf-8", "replace").strip().splitlines()
        why = text[-1] if text else f"exit code {code}"
        return job_error("bad_checkpoint", f"{run}: cannot be verified: {why}", file=str(run))
    hint = "resume goes on from the newest checkpoint that is whole"
    message = f"{damaged['folder']}: {damaged['problems'][0]}"
    return job_error("bad_checkpoint", message, file=damaged["folder"], hint=hint)
