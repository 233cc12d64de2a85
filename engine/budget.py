"""`--budget`: the time of a run over all its starts, in budget.json. No bit of a checkpoint depends on it."""

import contextlib
import json
import time
from dataclasses import asdict, dataclass, fields

from visionloop.engine.checkpoints.files import replace_file
from visionloop.engine.config.options import duration_text
from visionloop.engine.errors import UserError

# enough for what comes next; for the last evaluation and save only, not for one before; to be ended
# now
ENOUGH, SHORT, OVER = range(3)
BEAT_SECONDS = 5  # of time used are lost at most when the process is killed
LEAVING_SECONDS = 0.5  # from the last save to the end of the process


@dataclass(frozen=True)
class Figures:
    """What was measured once, in seconds: to get ready, a step that reads new images, a later one, an evaluation, saves."""

    start: float
    first_step: float
    step: float
    evaluation: float
    save: float
    last_save: float  # waited for until it is on the disk


@dataclass
class Budget:
    """The time of a run, on its main rank.

    seconds: all of it; steps: that were found to fit; used: before this start; began: of this
    start, by time.monotonic(); key: of the settings that the steps were found for; ended_at: the
    step at which the time was up.
    """

    folder: object
    seconds: float
    began: float
    used: float = 0.0
    steps: int | None = None
    key: str | None = None
    figures: Figures | None = None
    ended_at: int | None = None
    _written: float = 0.0

    def remaining(self):
        """Seconds until the run must be over."""
        return self.seconds - self.used - (time.monotonic() - self.began)

    def left(self, clock):
        """ENOUGH, SHORT or OVER before the step that is about to be done. clock: the run's, for what an evaluation takes now."""
        if time.monotonic() - self._written > BEAT_SECONDS:
            self.write()
        step = clock.last["compute"] + clock.last["data_wait"] or self.figures.step
        evaluation = clock.last["evaluation"] or self.figures.evaluation
        ending = step + evaluation + self.figures.last_save + LEAVING_SECONDS
        after_step = self.remaining() - ending
        # half as long again: an evaluation that takes longer than the one before must not end the
        # run early
        return (
            OVER
            if after_step <= 0
            else SHORT
            if after_step <= 1.5 * evaluation + self.figures.save
            else ENOUGH
        )

    def write(self):
        """Put the time used so far on the disk, where there is room."""
        self._written = time.monotonic()
        row = {
            "schema": 1,
            "budget_seconds": self.seconds,
            "used_seconds": round(self.seconds - self.remaining(), 3),
            "steps": self.steps,
        }
        row |= {
            "key": self.key,
            "ended_at": self.ended_at,
            "figures": self.figures and asdict(self.figures),
        }
        with contextlib.suppress(OSError):  # what really must be written will say so
            replace_file(self.folder / "budget.json", json.dumps(row, indent=1) + "\n")


def read_budget(folder):
    """The content of the run's budget.json, {} when there is none that can be read."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        row = json.loads((folder / "budget.json").read_text())
        known = {item.name: float(row["figures"][item.name]) for item in fields(Figures)}
        numbers = {name: float(row[name]) for name in ("budget_seconds", "used_seconds")}
        return row | numbers | {"steps": int(row["steps"]), "figures": Figures(**known)}
    return {}


def continued_budget(folder, seconds, began, record, *, steps):
    """The Budget of a run that goes on from a checkpoint or from nothing but its record. Raises UserError for another budget."""
    if record and record["budget_seconds"] != seconds:
        raise UserError(
            f"--budget: the run in {folder} was sized for {duration_text(record['budget_seconds'])} ({steps} steps), this command has "
            f"{duration_text(seconds)}; its schedule stays (start another with --output, or go on without a limit with --steps {steps})",
            code="changed_setting",
            field="budget",
        )
    if not record:
        raise UserError(
            f"--budget: the run in {folder} has none, or no budget.json any more; go on with --steps {steps}, or take another --output",
            code="changed_setting",
            field="budget",
        )
    return Budget(
        folder, seconds, began, used=record["used_seconds"], steps=record["steps"], key=record["key"], figures=record["figures"],
        ended_at=record["ended_at"],
    )  # fmt: skip
