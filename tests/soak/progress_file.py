"""The progress of the processes of a run, in a file that they and the kill test map to memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from visionloop.engine.logging.run_log import RunLog
from visionloop.engine.system.profiling import PARTS, Clock

PHASES = ("other", *PARTS)
NOT_STARTED = -1


class ProgressFile:
    """One row for each process: its phase, the optimizer steps done, and the step it started at.

    Args:
        path: of the file, which is made if it does not exist.
        processes: of the run.
    """

    def __init__(self, path: Path, processes: int):
        is_new = not path.exists()
        if is_new:
            path.write_bytes(bytes(3 * 8 * processes))
        self._rows = np.memmap(path, dtype=np.int64, mode="r+", shape=(processes, 3))
        if is_new:
            self.clear()

    def clear(self) -> None:
        self._rows[:] = (0, 0, NOT_STARTED)

    def phase(self, rank: int = 0) -> str:
        """Return the phase of a rank, one of PHASES."""
        return PHASES[self._rows[rank, 0]]

    def step(self, rank: int = 0) -> int:
        """Return the steps done in the whole run, 0 before the first step of this start."""
        return int(self._rows[rank, 1])

    def resumed_at(self, rank: int = 0) -> int | None:
        """Return the step that this start resumed from, None before the run log is opened."""
        step = int(self._rows[rank, 2])
        return None if step == NOT_STARTED else step

    def watch(self, rank: int) -> None:
        """Write the phase, the step and the start of this process to its row from now on."""
        row = self._rows[rank]
        measure, advance, start = Clock.measure, RunLog.advance, RunLog.__init__

        @contextmanager
        def reporting_measure(clock: Clock, part: str) -> Iterator[None]:
            row[0] = PHASES.index(part)
            try:
                with measure(clock, part):
                    yield
            finally:
                row[0] = 0

        def reporting_advance(log: RunLog, step: int) -> None:
            row[1] = step
            advance(log, step)

        def reporting_start(log: RunLog, *values: object, start_step: int, **more: object) -> None:
            row[2] = start_step
            start(log, *values, start_step=start_step, **more)

        Clock.measure, RunLog.advance = reporting_measure, reporting_advance
        RunLog.__init__ = reporting_start
