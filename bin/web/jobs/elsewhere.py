"""Trainings on the CPU that are no jobs of the queue: of a command line, or of another server."""

from collections.abc import Collection
from pathlib import Path

from visionloop.bin.web.jobs.processes import is_alive, lock_holder
from visionloop.bin.web.runs.index import RunIndex


class TrainingElsewhere:
    """Finds the trainings that occupy the CPU of this machine beside the queue's own (Linux).

    A training on a GPU is not among them: its files do not tell the index of its GPU.

    Args:
        index: the runs of the server.
    """

    def __init__(self, index: RunIndex) -> None:
        self._index = index

    def run(self, own: Collection[Path], *, walk: bool = False) -> Path | None:
        """Return the folder of such a training, None without one.

        Args:
            own: folders of the queue's runs.
            walk: look for runs that have begun since the index was read.
        """
        if walk:
            self._index.scan()
        for path in self._index.on_cpu():
            holder = None if path in own else lock_holder(path / ".lock")
            if holder is not None and is_alive(holder):
                return path
        return None
