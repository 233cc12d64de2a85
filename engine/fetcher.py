"""Fetching batches ahead of the loop, without ever blocking it."""

import queue
import threading
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class DataError:
    """A sample that could not be read: its name and why. Travels in place of a batch."""

    name: str
    why: str


class Fetcher:
    """A thread that takes batches from a loader; the main thread polls, so that a stop is seen within 0.2 s.

    Without workers nothing is made ahead: the samples are made in this process and would draw from the generators that the
    forward is using.
    """

    def __init__(self, loader, *, ahead, pin=False):
        self._batches = queue.SimpleQueue()
        self._permits = threading.Semaphore(ahead if loader.num_workers else 0)
        # the workers are started here, in the main thread
        self._iterator = iter(loader)
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
                self._batches.put(batch if not self._pin or isinstance(batch[0], DataError) else (batch[0].pin_memory(), batch[1]))
            except BaseException as error:  # any defect in making a sample belongs to the main thread
                self._batches.put(error)
                return

    def fetch(self, number, give_up):
        """The next `number` batches, or None as soon as `give_up()` is true while one of them is not there yet."""
        for _ in range(number):
            self._permits.release()
        batches = []
        while len(batches) < number:
            try:
                item = self._batches.get(timeout=0.2)
            except queue.Empty:
                if give_up():
                    return None
                continue
            if isinstance(item, BaseException):
                raise item
            batches.append(item)
        return batches

    def close(self):
        """End the workers and the thread. A thread that is busy making a sample in this process is left to itself."""
        self._closed = True
        self._permits.release()
        self._thread.join(timeout=0.5)
        if getattr(self._iterator, "_worker_pids_set", False):  # not when they ended by themselves, after the last batch
            # The loader would ask them with SIGTERM, which they ignore, and then wait for them as long as they live. Its SIGCHLD
            # handler raises in the main thread for a worker that is killed, unless it has been told to forget them.
            torch.utils.data._utils.signal_handling._remove_worker_pids(id(self._iterator))
            self._iterator._worker_pids_set = False
            for worker in self._iterator._workers:
                worker.kill()
            for worker in self._iterator._workers:
                worker.join()
