"""`--budget`: the time of a run over all its starts, kept in budget.json.

No bit of a checkpoint depends on it.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import asdict, dataclass, fields
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING

from visionloop.engine.checkpoints.files import replace_file
from visionloop.engine.config.options import duration_text
from visionloop.engine.errors import UserError
from visionloop.engine.types import JsonObject

if TYPE_CHECKING:
    from visionloop.engine.system.profiling import Clock

WRITE_EVERY_SECONDS = 5  # most of the used time that is lost when the process is killed
LEAVING_SECONDS = 0.5  # from the last save to the end of the process


class TimeLeft(IntEnum):
    """The part of a budget that is left before a step."""

    ENOUGH = 0  # for what comes next
    SHORT = 1  # for the last evaluation and save, not for one before
    OVER = 2  # the run must end now


@dataclass(frozen=True)
class Figures:
    """Durations of the parts of a run in seconds, measured once by a calibration run."""

    start: float  # from the start of the process to the first step
    first_step: float  # a step on images that were not read before
    step: float  # a later step
    evaluation: float
    save: float
    last_save: float  # until the checkpoint is on the disk


@dataclass
class Budget:
    """The time of a run, on its main rank.

    Attributes:
        folder: the folder of the run.
        seconds: the whole budget.
        began: when this start began, by time.monotonic().
        used: seconds used by earlier starts.
        steps: the optimizer steps that fit, None before they are estimated.
        key: hash of the settings that the steps were estimated for.
        figures: the durations that the steps were estimated from.
        ended_at: the step at which the time was over.
    """

    folder: Path
    seconds: float
    began: float
    used: float = 0.0
    steps: int | None = None
    key: str | None = None
    figures: Figures | None = None
    ended_at: int | None = None
    _written: float = 0.0

    def remaining(self) -> float:
        """Return the seconds until the run must be over."""
        return self.seconds - self.used - (time.monotonic() - self.began)

    def time_left(self, clock: Clock) -> TimeLeft:
        """Return what is left before the next step.

        Args:
            clock: of the run, for what a step and an evaluation take now.
        """
        if time.monotonic() - self._written > WRITE_EVERY_SECONDS:
            self.write()
        assert self.figures is not None, "a budget is measured before the first step"
        # on CUDA the last step may only have been launched; an interval waits for the device
        last_step = clock.last["compute"] + clock.last["data_wait"]
        step = max(last_step, clock.step_seconds) or self.figures.step
        evaluation = clock.last["evaluation"] or self.figures.evaluation
        last_part = step + evaluation + self.figures.last_save + LEAVING_SECONDS
        after_step = self.remaining() - last_part
        if after_step <= 0:
            return TimeLeft.OVER
        # a margin of half an evaluation: one that takes longer than the one before must not end
        # the run early
        if after_step <= 1.5 * evaluation + self.figures.save:
            return TimeLeft.SHORT
        return TimeLeft.ENOUGH

    def write(self) -> None:
        """Write the time used so far to budget.json; a full disk is ignored here."""
        self._written = time.monotonic()
        row = {
            "schema": 1,
            "budget_seconds": self.seconds,
            "used_seconds": round(self.seconds - self.remaining(), 3),
            "steps": self.steps,
            "key": self.key,
            "ended_at": self.ended_at,
            "figures": self.figures and asdict(self.figures),
        }
        with contextlib.suppress(OSError):  # a checkpoint that cannot be written reports it
            replace_file(self.folder / "budget.json", json.dumps(row, indent=1) + "\n")


def read_budget(folder: Path) -> JsonObject:
    """Return the content of a run's budget.json, {} when there is none that can be read."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        row: JsonObject = json.loads((folder / "budget.json").read_text())
        figures = Figures(
            **{item.name: float(row["figures"][item.name]) for item in fields(Figures)}
        )
        numbers = {name: float(row[name]) for name in ("budget_seconds", "used_seconds")}
        return {**row, **numbers, "steps": int(row["steps"]), "figures": figures}
    return {}


def resumed_budget(
    folder: Path, seconds: float, began: float, record: JsonObject, *, steps: int
) -> Budget:
    """Return the budget of a run that resumes from a checkpoint, or from its budget.json alone.

    Args:
        folder: the folder of the run.
        seconds: --budget of this start.
        began: when this start began, by time.monotonic().
        record: of `read_budget`.
        steps: the length of the run.

    Raises:
        UserError: the run has another budget, or none.
    """
    if record and record["budget_seconds"] != seconds:
        first = duration_text(record["budget_seconds"])
        raise UserError(
            f"--budget: the length of the run in {folder} was estimated for {first} "
            f"({steps} steps), this command has {duration_text(seconds)}; its schedule stays "
            "(start another run with --output, "
            f"or resume without a time limit with --steps {steps})",
            code="changed_setting",
            field="budget",
        )
    if not record:
        raise UserError(
            f"--budget: the run in {folder} has no readable budget.json; "
            f"resume with --steps {steps}, or start another run with --output",
            code="changed_setting",
            field="budget",
        )
    return Budget(
        folder,
        seconds,
        began,
        used=record["used_seconds"],
        steps=record["steps"],
        key=record["key"],
        figures=record["figures"],
        ended_at=record["ended_at"],
    )
