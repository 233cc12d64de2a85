"""Jobs as they are asked for: kinds, states, and the command of the task that each one runs."""

import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

BIN = Path(__file__).resolve().parents[2]


class JobKind(StrEnum):
    """Commands that a job runs."""

    TRAIN = "train"
    CHECK = "check"
    REPLAY = "replay"
    COMPARE = "compare"


class JobState(StrEnum):
    """States of a job.

    A stopped job is STOPPING until its last process has ended, then VERIFYING until its newest
    checkpoint has been read. LOST: the process ended without a word, by a kill or a power failure.
    """

    QUEUED = "queued"
    PAUSED = "paused"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    VERIFYING = "verifying"
    STOPPED = "stopped"
    FINISHED = "finished"
    FAILED = "failed"
    LOST = "lost"


WAITING = (JobState.QUEUED, JobState.PAUSED)
ALIVE = (JobState.STARTING, JobState.RUNNING, JobState.STOPPING)


@dataclass(frozen=True)
class JobSpec:
    """A job before it is started.

    Attributes:
        id: of the job, letters and digits; also the name of its folder.
        task: name of the command, such as "super_resolution".
        run: folder of the run that is trained, None for another kind.
        options: words after the command's name, `--output` not among them.
    """

    id: str
    kind: JobKind
    task: str
    run: Path | None
    options: tuple[str, ...]

    @property
    def words(self) -> tuple[str, ...]:
        """Words of the task's command: `train --output RUN ...`."""
        output = () if self.run is None else ("--output", str(self.run))
        return (self.kind.value, *output, *self.options)


def python_command(launcher: str, *words: str) -> tuple[str, ...]:
    """Return the command that runs bin/<launcher>.py with the interpreter of this server."""
    return (sys.executable, str(BIN / f"{launcher}.py"), *words)
