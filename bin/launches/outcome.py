"""End of a start, as an exit code: torchrun turns every exit of its processes into 1.

The state in `status.json` counts, if this start wrote it. Imports no torch.
"""

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path

from visionloop.engine.errors import DEFECT, FINISHED, STOPPED, USER_ERROR

# codes of the errors after which the same command resumes a run
RESUMABLE_ERRORS = ("lost_process", "out_of_memory")
UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Outcome:
    """The end of a start.

    Attributes:
        state: in words, such as "stopped" or "failed lost_process".
        code: FINISHED, STOPPED (the same command resumes), USER_ERROR or DEFECT.
    """

    state: str
    code: int


def read_status(run: Path) -> bytes | None:
    """Return the content of a run's status.json, None where there is none.

    Its heartbeat makes the content of each write another one.
    """
    with contextlib.suppress(OSError):
        return (run / "status.json").read_bytes()
    return None


def outcome_of_status(status: bytes | None) -> Outcome:
    """Return the outcome that the content of a status.json stands for."""
    try:
        content = json.loads(status or b"")
        state, code = content["state"], (content.get("error") or {}).get("code")
    except (ValueError, KeyError, TypeError, AttributeError):
        return Outcome(UNREADABLE, DEFECT)
    if state == "finished":
        return Outcome(state, FINISHED)
    if state in ("stopped", "running"):
        # running: process 0 was killed and could not say so
        return Outcome(state, STOPPED)
    if state != "failed" or not isinstance(code, str):
        return Outcome(UNREADABLE, DEFECT)
    if code in RESUMABLE_ERRORS:
        return Outcome(f"{state} {code}", STOPPED)
    return Outcome(f"{state} {code}", DEFECT if code == "defect" else USER_ERROR)


def outcome_of_start(
    before: bytes | None, after: bytes | None, code: int, *, was_stopped: bool
) -> Outcome:
    """Return the outcome of a start.

    Args:
        before, after: the run's status.json before the start and after its end.
        code: exit code of the processes.
        was_stopped: they were asked to stop.
    """
    written = outcome_of_status(after) if after != before else None
    if code == FINISHED:
        # process 0 of another node may be lost after this node's part, before the last checkpoint
        if written is not None and written.state == "running":
            return written
        return Outcome("finished", FINISHED)
    if written is not None:
        return written
    # the file is from an earlier start; a stop before this one began is no error of the run
    if was_stopped:
        return Outcome("stopped before it began", STOPPED)
    return Outcome("this start wrote no status", code if code in (STOPPED, USER_ERROR) else DEFECT)
