"""status.json: the state of a run for programs that watch it from outside."""

import contextlib
import json
import threading
import time
from pathlib import Path

from visionloop.engine.checkpoints.files import finite, replace_file
from visionloop.engine.errors import UserError
from visionloop.engine.types import JsonObject

HEARTBEAT_SECONDS = 5  # the file is at most 10 s old while the run lives


def failed_at_start(error: UserError) -> JsonObject:
    """Return the content of status.json for a run that failed before its first step."""
    return _ended_at_start("failed", error.as_dict())


def stopped_at_start() -> JsonObject:
    """Return the content of status.json for a run that was stopped before its first step."""
    return _ended_at_start("stopped", None)


def _ended_at_start(state: str, error: JsonObject | None) -> JsonObject:
    return {
        "schema": 1,
        "state": state,
        "step": 0,
        "epoch": 0,
        "heartbeat": time.time(),
        "error": error,
    }


class StatusFile:
    """The status.json of a run, replaced at every change and by a heartbeat. Main rank only."""

    def __init__(self, path: Path, *, step: int, epoch: int, steps: int) -> None:
        self._path, self._lock, self._ended = path, threading.Lock(), threading.Event()
        self._content: JsonObject = {
            "schema": 1,
            "state": "running",
            "step": step,
            "epoch": epoch,
            "steps": steps,
            "eta": None,
            "best": None,
            "peak_gib": None,
            "nonfinite_steps": 0,
            "error": None,
        }
        self.update()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_SECONDS):
            self.update()

    @property
    def best(self) -> JsonObject | None:
        """The best evaluation so far, as `TrainState.best`."""
        best: JsonObject | None = self._content["best"]
        return best

    def update(self, **changes: object) -> None:
        """Change fields and write the file. On a full disk the file stays as it is.

        changes: of the fields above; eta: the expected end in seconds since 1970.
        """
        # a checkpoint that cannot be written reports the full disk
        with self._lock, contextlib.suppress(OSError):
            self._content |= changes
            row = self._content | {"heartbeat": time.time()}
            replace_file(self._path, json.dumps(finite(row)) + "\n")

    def close(self) -> None:
        """End the heartbeat; the file stays."""
        self._ended.set()
        self._thread.join()
