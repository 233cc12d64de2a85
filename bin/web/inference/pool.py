"""Workers for the models that were used last, within limits of number, age and time."""

import logging
import secrets
import shutil
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import BoundedSemaphore, Condition, Event, Thread
from typing import NamedTuple

from visionloop.bin.web.config import Limits
from visionloop.bin.web.inference.messages import ImageName, Prediction, PredictionRequest
from visionloop.bin.web.inference.process import LostWorker, ModelKey, Worker
from visionloop.bin.web.problems import Problem

log = logging.getLogger("visionloop.studio")


class PoolTimes(NamedTuple):
    """Seconds: of loading a model, of a prediction, of waiting for a worker, and of an idle one."""

    load: float = 180
    predict: float = 120
    wait: float = 120
    idle: float = 300


TIMES = PoolTimes()


class KeptPrediction(NamedTuple):
    """A prediction, and the name under which its images are kept for a while."""

    id: str
    prediction: Prediction


class PredictorPool:
    """Workers, and the images of the latest predictions.

    Args:
        folder: of its own, emptied at start and at the end.
        limits: of uploads and pixels.
        max_workers: number of models in memory.
        times: limits of time.
    """

    kept_results = 16

    def __init__(
        self, folder: Path, limits: Limits, max_workers: int = 2, times: PoolTimes = TIMES
    ) -> None:
        self.folder, self.limits, self.times = folder, limits, times
        self.max_workers = max_workers
        self.workers: dict[ModelKey, Worker] = {}
        self.results: OrderedDict[str, Path] = OrderedDict()
        self.uploads = BoundedSemaphore(limits.waiting_uploads)
        self.changed, self.closing = Condition(), Event()
        self.reaper = Thread(target=self.end_idle_workers, daemon=True)

    def start(self) -> None:
        """Empty the folder of what a killed server has left, and watch for idle workers."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True, mode=0o700)
        self.reaper.start()

    def close(self) -> None:
        """End all workers."""
        self.closing.set()
        with self.changed:
            workers = list(self.workers.values())
            self.workers.clear()
            self.changed.notify_all()
        for worker in workers:
            worker.kill()
        self.reaper.join()
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def upload(self) -> Iterator[None]:
        """Count an upload until its prediction is there. Raises Problem (429) for too many."""
        if not self.uploads.acquire(blocking=False):
            raise Problem(
                429,
                "too_many_uploads",
                f"{self.limits.waiting_uploads} images wait for a prediction",
                hint="try again when another prediction has ended",
            )
        try:
            yield
        finally:
            self.uploads.release()

    def predict(
        self, key: ModelKey, image: bytes, *, top_k: int, attention: bool
    ) -> KeptPrediction:
        """Predict an image with a model, in a worker that is started if need be.

        Raises:
            Problem: the model or the image is refused, or there is no result in time.
        """
        name = secrets.token_urlsafe(12)
        folder = self.folder / name
        folder.mkdir()
        (folder / "image").write_bytes(image)
        request = PredictionRequest(
            image=str(folder / "image"), output=str(folder), top_k=top_k, attention=attention
        )
        try:
            prediction = self.predict_in_worker(key, request)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        (folder / "image").unlink()
        self.keep(name, folder)
        return KeptPrediction(name, prediction)

    def predict_in_worker(self, key: ModelKey, request: PredictionRequest) -> Prediction:
        """Predict in a worker; where it has ended without a reply, in a new one once."""
        for _ in range(2):
            worker = self.take(key)
            try:
                return worker.predict(
                    request, load_seconds=self.times.load, seconds=self.times.predict
                )
            except LostWorker:
                continue
            finally:
                self.give_back(worker)
        raise Problem(
            503,
            "lost_worker",
            "the process of the prediction has ended twice without a result",
            hint="the image or the model may need more memory than is free; the log has details",
        )

    def take(self, key: ModelKey) -> Worker:
        """Return a worker that nobody else uses until `give_back`. Raises Problem (503)."""
        until = time.monotonic() + self.times.wait
        with self.changed:
            while not self.closing.is_set():
                worker = self.workers.get(key)
                if worker is not None and not worker.is_busy:
                    worker.is_busy = True
                    return worker
                if worker is None and self.make_room():
                    self.workers[key] = Worker(key, self.folder, self.limits.decoded_pixels)
                    return self.workers[key]
                if not self.changed.wait(until - time.monotonic()):
                    break
        raise Problem(
            503,
            "busy",
            "no process is free for this prediction",
            hint="try again when another prediction has ended",
        )

    def make_room(self) -> bool:
        """End the idle worker that was used first, if there are too many; False if none is idle."""
        if len(self.workers) < self.max_workers:
            return True
        idle = [worker for worker in self.workers.values() if not worker.is_busy]
        if not idle:
            return False
        self.end(min(idle, key=lambda worker: worker.last_used))
        return True

    def give_back(self, worker: Worker) -> None:
        """Make a worker free for others, or end one that cannot be used again."""
        with self.changed:
            worker.is_busy, worker.last_used = False, time.monotonic()
            if not worker.is_usable and self.workers.get(worker.key) is worker:
                self.end(worker)
            self.changed.notify_all()

    def end(self, worker: Worker) -> None:
        """End a worker. The caller holds the lock."""
        del self.workers[worker.key]
        worker.kill()
        worker.log_path.unlink(missing_ok=True)

    def end_idle_workers(self) -> None:
        """End workers that nobody has used for a while, until the pool closes."""
        while not self.closing.wait(min(self.times.idle, 10)):
            with self.changed:
                for worker in list(self.workers.values()):
                    age = time.monotonic() - worker.last_used
                    if not worker.is_busy and age >= self.times.idle:
                        self.end(worker)

    def keep(self, name: str, folder: Path) -> None:
        """Keep the images of a prediction, and drop those of the oldest."""
        with self.changed:
            self.results[name] = folder
            while len(self.results) > self.kept_results:
                shutil.rmtree(self.results.popitem(last=False)[1], ignore_errors=True)

    def image(self, name: str, kind: ImageName) -> bytes:
        """Return a PNG of a prediction. Raises Problem (404) for one that is kept no longer."""
        with self.changed:
            folder = self.results.get(name)
        try:
            if folder is not None:
                return (folder / f"{kind}.png").read_bytes()
        except FileNotFoundError:
            pass  # another prediction has replaced it a moment ago, or it has no such image
        raise Problem(
            404, "not_found", "no such image; those of the latest predictions are kept alone"
        )
