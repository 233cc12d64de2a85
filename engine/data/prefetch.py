"""Fetching of batches ahead of the training loop, which is never blocked by a loader."""

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

import torch
from torch.utils.data import DataLoader, _utils, dataloader

from visionloop.engine.errors import UserError
from visionloop.engine.system import shared_memory
from visionloop.engine.system.memory import give_back_freed_memory
from visionloop.engine.system.shared_memory import (
    error_number,
    shared_memory_errors,
    shared_memory_problem,
)

log = logging.getLogger(__name__)
# an iterator whose start fails would raise another error when it is deleted
dataloader._MultiProcessingDataLoaderIter._shutdown = True  # private
UNREADABLE = "unreadable_sample"
SENDING_FAILED = 128  # exit code of a worker that cannot send a batch, plus the number of the error
EXIT_CODE_SECONDS = 5  # to wait for the exit code of a worker whose connection has broken
# to wait for one batch before a warning names the samples in progress; again each time the wait has
# doubled
SLOW_SECONDS = 60


@dataclass(frozen=True)
class DataError:
    """A sample that could not be read; it is passed on in place of a batch.

    Attributes:
        name: the path of the sample.
        why: the reason.
        code: the code of the error that the run ends with.
        details: the traceback of a user's own code.
    """

    name: str
    why: str
    code: str = UNREADABLE
    details: str = ""

    def as_user_error(self) -> UserError:
        """Return the error that the run ends with, once a checkpoint is safe."""
        hint = "--skip-unreadable continues without it" if self.code == UNREADABLE else None
        return UserError(
            f"{self.name}: {self.why}",
            code=self.code,
            file=self.name,
            hint=hint,
            details=self.details,
        )


def no_shared_memory(number: int) -> DataError:
    """Return the error of workers that cannot pass batches on. number: the system's."""
    return DataError(shared_memory.FOLDER, shared_memory_problem(number), code=shared_memory.CODE)


class Prefetcher:
    """A thread that takes batches from a loader; the main thread polls and sees a stop in 0.2 s.

    Without workers nothing is prepared ahead: the samples are made in this process and would draw
    from the generators that the forward is using.

    Args:
        loader: yields tuples whose first item is a Batch or a DataError. `loader.dataset` is a
            `SeededDataset`, whose `samples_in_progress(workers)` names what workers are at.
        ahead: number of batches to prepare ahead, where the loader has workers.
        device: of the batches' next copy; for CUDA they are put into page-locked memory.
    """

    def __init__(
        self, loader: DataLoader, *, ahead: int, device: torch.device | None = None
    ) -> None:
        self._batches: queue.SimpleQueue[Any] = queue.SimpleQueue()  # type: ignore[explicit-any]  # items differ by loader
        self._permits = threading.Semaphore(ahead if loader.num_workers else 0)
        # the workers are started here, in the main thread
        with shared_memory_errors():
            self._iterator: Any = iter(loader)  # type: ignore[explicit-any]  # private attributes
        self._dataset: Any = loader.dataset  # type: ignore[explicit-any]  # a SeededDataset
        if loader.num_workers:
            # each worker was sent a pickled dataset, as large as its index
            give_back_freed_memory()
        self._device = device if device is not None and device.type == "cuda" else None
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="prefetcher", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        if self._device is not None:
            # a thread begins on GPU 0, where pinning might create a context
            torch.cuda.set_device(self._device)
        while True:
            self._permits.acquire()
            if self._closed:
                return
            try:
                item = next(self._iterator)
                if self._device is not None and not isinstance(item[0], DataError):
                    item = (item[0].pin_memory(), item[1])
                self._batches.put(item)
            except BaseException as error:  # any defect of a dataset belongs to the main thread
                self._batches.put(self._lost_worker(error) or error)
                return

    def _lost_worker(self, error: BaseException) -> tuple[DataError, tuple[()]] | None:
        """Return (DataError, ()) when a worker was killed or cannot send its batch, else None."""
        workers = getattr(self._iterator, "_workers", ())
        # the connection that hands over a batch's memory closes before the process has ended
        if workers and isinstance(error, EOFError | OSError):
            ended = wait([worker.sentinel for worker in workers], timeout=EXIT_CODE_SECONDS)
            for worker in workers:
                if worker.sentinel in ended:
                    worker.join()  # the sentinel too may be sooner than the exit code
        for number, worker in enumerate(workers):
            if worker.exitcode is not None and worker.exitcode >= SENDING_FAILED:
                return no_shared_memory(worker.exitcode - SENDING_FAILED), ()
            if worker.exitcode is not None and worker.exitcode < 0:
                why = (
                    f"the worker that was reading it was killed by signal {-worker.exitcode}; "
                    "is there enough memory?"
                )
                names = ", ".join(self._dataset.samples_in_progress([number])) or "no sample"
                return DataError(names, why, code="lost_worker"), ()
        refused = error_number(error) if isinstance(error, RuntimeError) else None
        return None if refused is None else (no_shared_memory(refused), ())

    def fetch(self, number: int, should_stop: Callable[[], bool]) -> list[Any] | None:  # type: ignore[explicit-any]  # items differ by loader
        """Return the next `number` items of the loader.

        Returns:
            None as soon as `should_stop()` is true while an item is still missing; fewer items
            where the last is a DataError, since no other comes after a lost worker.
        """
        for _ in range(number):
            self._permits.release()
        items: list[Any] = []  # type: ignore[explicit-any]  # items differ by loader
        began, patience = time.monotonic(), SLOW_SECONDS
        while len(items) < number:
            try:
                item = self._batches.get(timeout=0.2)
            except queue.Empty:
                if should_stop():
                    return None
                waited = time.monotonic() - began
                if waited >= patience:
                    names = ", ".join(self._dataset.samples_in_progress())
                    log.warning(
                        "waiting for data for %.0f s; samples in progress: %s",
                        waited,
                        names or "one in this process",
                    )
                    patience *= 2
                continue
            if isinstance(item, BaseException):
                raise item
            items.append(item)
            if isinstance(item[0], DataError):
                break
        return items

    def close(self) -> None:
        """End the workers and the thread, but for a thread that is busy reading a sample itself.

        Relies on private parts of `torch.utils.data`; `tests/engine/data/test_prefetch.py` fails
        where they are missing.
        """
        self._closed = True
        self._permits.release()
        self._thread.join(timeout=0.5)
        iterator = self._iterator
        # not when the workers ended by themselves, after the last batch
        if getattr(iterator, "_worker_pids_set", False):
            # The loader would send them SIGTERM, which they ignore, and then wait without a limit.
            # Its SIGCHLD handler raises in the main thread for a worker that is killed, unless the
            # process ids are removed first.
            _utils.signal_handling._remove_worker_pids(id(iterator))
            iterator._worker_pids_set = False
            for worker in iterator._workers:
                worker.kill()
            for worker in iterator._workers:
                worker.join()
            # The iterator's own shutdown would wait for a lock, which a worker killed while holding
            # it never releases.
            iterator._shutdown = True
            for indices in iterator._index_queues:
                indices.cancel_join_thread()
                indices.close()
        self._iterator = None
