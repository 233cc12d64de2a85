"""Signals that stop a run, and the exit of a training process."""

import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn


class StopFlag:
    """A flag raised by SIGTERM or SIGINT; the loop reads it in the step's collective.

    Repeated SIGTERM changes nothing. A second SIGINT at least 1 s after the first is from a person
    who does not want to wait for the save; sooner ones are the same key press. It raises
    KeyboardInterrupt, which a notebook survives; with `ends_process` it exits at once with 130.
    """

    def __init__(self, *, ends_process: bool = False) -> None:
        self.requested, self.ends_process = False, ends_process
        self._interrupted_at: float | None = None
        # what signal.signal returns and takes
        self._previous: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}  # type: ignore[explicit-any]  # as typeshed

    def __call__(self) -> bool:
        return self.requested

    def install(self) -> None:
        """Handle both signals. In the main thread only; elsewhere the flag is set by hand."""
        if threading.current_thread() is threading.main_thread():
            self._previous = {
                number: signal.signal(number, self._handle)
                for number in (signal.SIGTERM, signal.SIGINT)
            }

    def uninstall(self) -> None:
        """Restore the former handlers."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if number == signal.SIGINT:
            if self._interrupted_at is not None and now - self._interrupted_at >= 1:
                if not self.ends_process:
                    raise KeyboardInterrupt
                end_process(130)
            self._interrupted_at = self._interrupted_at or now
        self.requested = True


def end_process(code: int) -> NoReturn:
    """Flush the output, kill this process's own workers by id, and exit at once.

    sys.exit would wait for threads and queues (measured: 90 s).
    """
    for child in multiprocessing.active_children():
        child.kill()
    # the queues of loaders: else multiprocessing's tracker complains of their semaphores
    gc.collect()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
