"""One worker as its server sees it: started, used, and ended."""

import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import IO, NamedTuple

from visionloop.bin.web.inference.messages import Failure, Prediction, PredictionRequest, Reply
from visionloop.bin.web.problems import Problem
from visionloop.bin.web.runs.index import Signature

MODULE = "visionloop.bin.web.inference.worker"
LOG_TAIL = 4000  # bytes of a worker's log that the log of the server repeats
log = logging.getLogger("visionloop.studio")


class ModelKey(NamedTuple):
    """A task, and a folder or a name of the model zoo.

    files: signatures of a folder's files, since a run replaces its best weights.
    """

    task: str
    model: str
    files: tuple[Signature, ...] = ()


class LostWorker(Exception):
    """The worker has ended without a reply, as when the system had no memory for it."""


class Worker:
    """A process with one model.

    Args:
        key: the model.
        folder: an existing folder for its log.
        max_pixels: of an image.
    """

    def __init__(self, key: ModelKey, folder: Path, max_pixels: int) -> None:
        self.key, self.is_busy, self.is_ready = key, True, False
        self.last_used = time.monotonic()
        self.log_path = folder / f"worker-{time.monotonic_ns()}.log"
        command = (sys.executable, "-P", "-m", MODULE, key.task, key.model, str(max_pixels))
        with open(self.log_path, "wb") as log_file:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log_file,
                cwd=folder,
                env={**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"},
                # Ctrl-C is for the server, which ends its workers
                start_new_session=True,
            )
        assert self.process.stdout and self.process.stdin
        self.replies: SimpleQueue[bytes] = SimpleQueue()
        Thread(target=pass_on, args=(self.process.stdout, self.replies), daemon=True).start()

    def predict(
        self, request: PredictionRequest, *, load_seconds: float, seconds: float
    ) -> Prediction:
        """Return the prediction of an image, after the model is loaded.

        Raises:
            LostWorker: the process has ended.
            Problem: the model cannot be loaded, the image not be predicted, or time is up; see
                `is_usable` for whether the worker can be used again.
        """
        if not self.is_ready:
            self.is_ready = self.receive(load_seconds, "loading the model").ready
        assert self.process.stdin
        try:
            self.process.stdin.write(request.model_dump_json().encode() + b"\n")
            self.process.stdin.flush()
        except OSError:
            raise self.lost() from None
        prediction = self.receive(seconds, "the prediction").prediction
        assert prediction is not None
        return prediction

    def receive(self, seconds: float, subject: str) -> Reply:
        """Return the next reply. Raises as `predict`."""
        try:
            line = self.replies.get(timeout=seconds)
        except Empty:
            self.kill()
            raise Problem(
                503,
                "timeout",
                f"{subject}: no result within {seconds:.0f} s",
                hint="take a smaller image or model, or wait until a training has ended",
            ) from None
        if not line:
            raise self.lost()
        reply = Reply.model_validate_json(line)
        if reply.failure:
            raise self.problem_of(reply.failure)
        return reply

    @property
    def is_usable(self) -> bool:
        """Return whether the process is alive with its model loaded."""
        return self.is_ready and self.process.poll() is None

    def lost(self) -> LostWorker:
        self.kill()
        log.error("worker of %s has ended: %s", self.key.model, self.log_tail())
        return LostWorker(self.key.model)

    def problem_of(self, failure: Failure) -> Problem:
        """Return a failure as the client gets it."""
        if failure.code == "defect":
            log.error("worker of %s: %s", self.key.model, self.log_tail())
        return Problem(
            failure.status, failure.code, failure.message, field=failure.field, hint=failure.hint
        )

    def log_tail(self) -> str:
        """Return the end of what the process has printed."""
        with suppress(FileNotFoundError), open(self.log_path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - LOG_TAIL))
            return file.read().decode(errors="replace").strip()
        return ""  # the server ends

    def kill(self) -> None:
        """End the process and all of its group."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def pass_on(lines: IO[bytes], replies: SimpleQueue[bytes]) -> None:
    """Put lines into a queue, an empty one at the end."""
    with lines:
        for line in lines:
            replies.put(line)
    replies.put(b"")
