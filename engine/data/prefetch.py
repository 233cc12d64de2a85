"""Fetching batches ahead of the loop, without ever blocking it."""

import logging
import queue
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import wait

import torch

from visionloop.engine.errors import UserError
from visionloop.engine.system.memory import give_back_freed_memory

log = logging.getLogger(__name__)
END_SECONDS = 5  # for the exit code of a worker whose connection has broken
# of waiting for one batch: then it is said which sample is being made, and again each time the wait
# has doubled
SLOW_SECONDS = 60


@dataclass(frozen=True)
class DataError:
    """A sample that could not be had: its name and why. Travels in place of a batch. code: of the error that the run ends with."""

    name: str
    why: str
    code: str = "unreadable_sample"

    def as_user_error(self):
        """What the run fails with, once a checkpoint is safe."""
        hint = "--skip-unreadable goes on without it" if self.code == "unreadable_sample" else None
        return UserError(f"{self.name}: {self.why}", code=self.code, file=self.name, hint=hint)


class Prefetcher:
    """A thread that takes batches from a loader; the main thread polls, so that a stop is seen within 0.2 s.

    loader.dataset.in_work(worker): names of the samples that these workers are making (see
    SeededDataset); None: all of them.

    Without workers nothing is made ahead: the samples are made in this process and would draw from
    the generators that the forward is using.
    """

    def __init__(self, loader, *, ahead, pin=False):
        self._batches = queue.SimpleQueue()
        self._permits = threading.Semaphore(ahead if loader.num_workers else 0)
        # the workers are started here, in the main thread
        self._iterator, self._in_work = iter(loader), loader.dataset.in_work
        if loader.num_workers:
            # each worker was sent a pickled dataset, as large as its index
            give_back_freed_memory()
        self._pin, self._closed = pin, False
        self._thread = threading.Thread(target=self._work, name="fetcher", daemon=True)
        self._thread.start()

    def _work(self):
        while True:
            self._permits.acquire()
            if self._closed:
                return
            try:
                batch = next(self._iterator)
                self._batches.put(
                    batch
                    if not self._pin or isinstance(batch[0], DataError)
                    else (batch[0].pin_memory(), batch[1])
                )
            except (
                BaseException
            ) as error:  # any defect in making a sample belongs to the main thread
                self._batches.put(self._lost_worker(error) or error)
                return

    def _lost_worker(self, error):
        """(DataError, ()) when a worker was killed, else None."""
        workers = getattr(self._iterator, "_workers", ())
        if workers and isinstance(
            error, (EOFError, OSError)
        ):  # what a batch's memory is taken over by closes before the process has ended
            ended = wait([worker.sentinel for worker in workers], timeout=END_SECONDS)
            for worker in workers:
                if worker.sentinel in ended:
                    worker.join()  # the sentinel too may be sooner than the exit code
        for number, worker in enumerate(workers):
            if worker.exitcode is not None and worker.exitcode < 0:
                why = f"the worker that was making it was killed by signal {-worker.exitcode}; is there memory enough?"
                return DataError(
                    ", ".join(self._in_work([number])) or "no sample", why, code="lost_worker"
                ), ()
        return None

    def fetch(self, number, give_up):
        """The next `number` batches, or None as soon as `give_up()` is true while one of them is not there yet.

        Fewer, where the last is a DataError: after a lost worker no other comes.
        """
        for _ in range(number):
            self._permits.release()
        batches, began, patience = [], time.monotonic(), SLOW_SECONDS
        while len(batches) < number:
            try:
                item = self._batches.get(timeout=0.2)
            except queue.Empty:
                if give_up():
                    return None
                if time.monotonic() - began >= patience:
                    names = ", ".join(self._in_work()) or "a sample in this process"
                    log.warning(
                        "waiting for data for %.0f s; in work: %s", time.monotonic() - began, names
                    )
                    patience *= 2
                continue
            if isinstance(item, BaseException):
                raise item
            batches.append(item)
            if isinstance(item[0], DataError):
                break
        return batches

    def close(self):
        """End the workers and the thread. A thread that is busy making a sample in this process is left to itself."""
        self._closed = True
        self._permits.release()
        self._thread.join(timeout=0.5)
        if getattr(
            self._iterator, "_worker_pids_set", False
        ):  # not when they ended by themselves, after the last batch
            # The loader would ask them with SIGTERM, which they ignore, and then wait for them as
            # long as they live. Its SIGCHLD handler raises in the main thread for a worker that is
            # killed, unless it has been told to forget them.
            torch.utils.data._utils.signal_handling._remove_worker_pids(id(self._iterator))
            self._iterator._worker_pids_set = False
            for worker in self._iterator._workers:
                worker.kill()
            for worker in self._iterator._workers:
                worker.join()
            # Its own end would now take a lock that a process killed in the wrong microsecond holds
            # for ever.
            self._iterator._shutdown = True
            for indices in self._iterator._index_queues:
                indices.cancel_join_thread()
                indices.close()
        self._iterator = None
