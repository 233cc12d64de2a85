"""status.json: what a platform or a person asks of a run from outside."""

import contextlib
import json
import threading
import time

from visionloop.engine.checkpoints.files import finite, replace_file

BEAT_SECONDS = 5  # the file is at most 10 s old while the run lives


def failed_at_start(error):
    """The content of status.json for a run that never began. error: a UserError."""
    return {
        "schema": 1,
        "state": "failed",
        "step": 0,
        "epoch": 0,
        "heartbeat": time.time(),
        "error": error.as_dict(),
    }


def stopped_at_start():
    """The content of status.json for a run that was stopped before its first step."""
    return {
        "schema": 1,
        "state": "stopped",
        "step": 0,
        "epoch": 0,
        "heartbeat": time.time(),
        "error": None,
    }


class StatusFile:
    """Replaced atomically at every change and by a heartbeat. Main rank only."""

    def __init__(self, path, *, step, epoch, steps):
        self._path, self._lock, self._ended = path, threading.Lock(), threading.Event()
        empty = {"eta": None, "best": None, "error": None}
        self._content = {
            "schema": 1,
            "state": "running",
            "step": step,
            "epoch": epoch,
            "steps": steps,
            **empty,
        }
        self.update()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()

    def _beat(self):
        while not self._ended.wait(BEAT_SECONDS):
            self.update()

    @property
    def best(self):
        """What was told last of the best score, or None."""
        return self._content["best"]

    def update(self, **changes):
        """Change fields and write the file. eta: expected end, seconds since 1970. On a full disk the file stays as it is."""
        with self._lock, contextlib.suppress(OSError):  # what really must be written will say so
            self._content |= changes
            replace_file(
                self._path, json.dumps(finite(self._content | {"heartbeat": time.time()})) + "\n"
            )

    def close(self):
        self._ended.set()
        self._thread.join()
