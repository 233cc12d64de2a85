"""What the processes of a run are doing at this moment, in a file that they and the soak map."""

from contextlib import contextmanager

import numpy as np

from visionloop.engine.logging.run_log import RunLog
from visionloop.engine.system.profiling import PARTS, Clock

PHASES = ("other", *PARTS)


class TensorBoardWriter:
    """One row for each process: its phase, and the optimizer steps that it has done since the beginning of the run."""

    def __init__(self, path, processes):
        if not path.exists():
            path.write_bytes(bytes(2 * 8 * processes))
        self._rows = np.memmap(path, dtype=np.int64, mode="r+", shape=(processes, 2))

    def clear(self):
        self._rows[:] = 0

    def phase(self, rank=0):
        """A name out of PHASES."""
        return PHASES[self._rows[rank, 0]]

    def step(self, rank=0):
        """Steps done; 0 before the first of this start."""
        return int(self._rows[rank, 1])

    def watch(self, rank):
        """From now on this process tells: its clock knows the phase, its log the step."""
        row, measure, advance = self._rows[rank], Clock.measure, RunLog.advance

        @contextmanager
        def telling_measure(clock, part):
            row[0] = PHASES.index(part)
            try:
                with measure(clock, part):
                    yield
            finally:
                row[0] = 0

        def telling_advance(log, step):
            row[1] = step
            advance(log, step)

        Clock.measure, RunLog.advance = telling_measure, telling_advance
