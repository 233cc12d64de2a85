"""Being told to stop: signals, exit codes, and the one way out of a training process."""

import gc
import multiprocessing
import os
import signal
import sys
import threading
import time


class StopFlag:
    """Raised by SIGTERM or SIGINT; the loop reads it in the step's collective.

    Repeated SIGTERM changes nothing. A second SIGINT at least 1 s after the first is from a person
    who does not want to wait for the save; sooner ones are the same key press seen twice. It raises
    KeyboardInterrupt, which a notebook outlives; with `ends_process` it exits at once with 130.
    """

    def __init__(self, *, ends_process=False):
        self.wanted, self.ends_process = False, ends_process
        self._interrupted_at = None
        self._previous = {}

    def __call__(self):
        return self.wanted

    def install(self):
        """Main thread only; elsewhere the flag can still be raised by hand."""
        if threading.current_thread() is threading.main_thread():
            self._previous = {
                number: signal.signal(number, self._handle)
                for number in (signal.SIGTERM, signal.SIGINT)
            }

    def uninstall(self):
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _handle(self, number, _frame):
        now = time.monotonic()
        if number == signal.SIGINT:
            if self._interrupted_at is not None and now - self._interrupted_at >= 1:
                if not self.ends_process:
                    raise KeyboardInterrupt
                end_process(130)
            self._interrupted_at = self._interrupted_at or now
        self.wanted = True


def end_process(code):
    """Flush what is buffered, end our own loader workers by id, and leave. sys.exit would wait for threads and queues (seen: 90 s)."""
    for child in multiprocessing.active_children():
        child.kill()
    # the queues of loaders: else multiprocessing's tracker complains of their semaphores
    gc.collect()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
