"""The state of a job whose process has ended, from its exit code and the run's status.json.

Under torchrun every exit is 1, and a job of a cluster has no exit code here: status.json has the
first word, where it was written in this attempt.
"""

import signal
from dataclasses import dataclass
from pathlib import Path

from visionloop.bin.launches.outcome import RESUMABLE_ERRORS
from visionloop.bin.reports.run_folder import is_number, read_object
from visionloop.bin.web.jobs.folder import JobFolder, read_json
from visionloop.bin.web.jobs.spec import JobKind, JobState
from visionloop.bin.web.jobs.store import JobRow
from visionloop.engine.errors import FINISHED, STOPPED, USER_ERROR
from visionloop.engine.types import JsonObject

MOST_RESTARTS = 3  # that the queue makes by itself
STATE_OF_WISH = {
    "stop": JobState.STOPPED,
    "kill": JobState.STOPPED,
    "pause": JobState.PAUSED,
    "yield": JobState.QUEUED,  # to go on when another job has ended
}
SHELL_SIGNALS = 128  # exit codes above: a signal, as shells and containers report it
ERROR = "error: "
LOCKED = "another process is running there"


@dataclass(frozen=True)
class Outcome:
    """The state of a job after its end.

    error: as in status.json; restarts: the queue starts the job again by itself.
    """

    state: JobState
    error: JsonObject | None = None
    restarts: bool = False


def job_error(
    code: str, message: str, *, file: str | None = None, hint: str | None = None
) -> JsonObject:
    """Return an error object as in status.json."""
    return {"code": code, "message": message, "file": file, "field": None, "hint": hint}


def fresh_status(run: Path | None, since: float | None) -> JsonObject:
    """Return status.json of a run if it was written since a time, else {}."""
    status = read_object(run / "status.json") if run else {}
    heartbeat = status.get("heartbeat")
    return status if is_number(heartbeat) and heartbeat >= (since or 0) else {}


def outcome_of(job: JobRow, folder: JobFolder, code: int | None) -> Outcome:
    """Return the state of a job after its end.

    Args:
        job: the job, with what the user wanted of it.
        folder: of the job.
        code: its exit code, negative for a signal; None: its process has ended without a word.
    """
    if job.kind is not JobKind.TRAIN:
        return _outcome_of_service(job, folder, code)
    status = fresh_status(job.run, job.started)
    state, error = status.get("state"), status.get("error")
    if code == FINISHED or state == "finished":
        return Outcome(JobState.FINISHED)
    failure = error if state == "failed" and isinstance(error, dict) else None
    if failure and failure.get("code") in RESUMABLE_ERRORS:
        return _again(job, failure)
    is_killed = code is None or code < 0 or code > SHELL_SIGNALS
    if job.wanted and (state == "stopped" or code == STOPPED or (is_killed and not failure)):
        return Outcome(STATE_OF_WISH[job.wanted])
    if failure:
        return Outcome(JobState.FAILED, failure)
    if state == "stopped":
        return Outcome(JobState.STOPPED)
    if code == STOPPED:
        return _again(job, job_error("lost_process", "the run asked to be started again"))
    if is_killed:
        return Outcome(JobState.LOST, _lost_error(code))
    return Outcome(JobState.FAILED, _error_of_log(folder, code))


def _again(job: JobRow, error: JsonObject) -> Outcome:
    """Return the outcome of a job that asks to be started again; after a few times it failed."""
    if job.wanted:
        return Outcome(STATE_OF_WISH[job.wanted])
    if job.restarts < MOST_RESTARTS:
        return Outcome(JobState.QUEUED, error, restarts=True)
    hint = f"it was started again {MOST_RESTARTS} times; resume it when the cause is removed"
    return Outcome(JobState.FAILED, error | {"hint": error.get("hint") or hint})


def _outcome_of_service(job: JobRow, folder: JobFolder, code: int | None) -> Outcome:
    """Return the outcome of a check, replay or comparison: its result counts.

    A check that has found errors in the data has done its work, with exit code 2.
    """
    has_result = read_json(folder.result) is not None
    if has_result and code in (FINISHED, USER_ERROR):
        return Outcome(JobState.FINISHED)
    if job.wanted:
        return Outcome(JobState.STOPPED)
    if code is None or code < 0:
        return Outcome(JobState.LOST, _lost_error(code))
    return Outcome(JobState.FAILED, _error_of_log(folder, code))


def _lost_error(code: int | None) -> JsonObject:
    number = 0 if code is None else -code if code < 0 else code - SHELL_SIGNALS
    try:
        name = f"signal {signal.Signals(number).name}"
    except ValueError:
        name = "a kill or a restart of the machine"
    hint = "if it used too much memory, take a smaller batch; resume goes on from the checkpoint"
    return job_error("lost", f"the process was ended by {name}", hint=hint)


def _error_of_log(folder: JobFolder, code: int | None) -> JsonObject:
    """Return the error that a command has printed: its last line `error: ...`."""
    lines = [line.strip() for line in folder.log_lines(200) if line.strip()]
    errors = [line[len(ERROR) :] for line in lines if line.startswith(ERROR)]
    if errors:
        kind = "locked" if LOCKED in errors[-1] else "bad_input"
        return job_error(kind, errors[-1])
    last = lines[-1] if lines else "it printed nothing"
    return job_error("defect", f"ended with exit code {code}: {last}", hint="see the log")
