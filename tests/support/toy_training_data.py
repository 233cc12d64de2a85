"""Training data of the toy task, for tests of samplers, loaders and prefetching."""

import multiprocessing
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from toy_task import ToyConfig, ToyImages, ToyTask

from visionloop.engine.batch import Batch
from visionloop.engine.config.train_config import TrainConfig
from visionloop.engine.data.loader import TrainingData
from visionloop.engine.data.micro_batches import MicroBatchPlan
from visionloop.engine.distributed import World

CPU = torch.device("cpu")
CONFIG = TrainConfig(steps=20, batch_size=8, micro_batch=4, workers=0, seed=3)
TASK = ToyTask(ToyConfig())


def never_stop() -> bool:
    """Return False, as a run that nobody stops."""
    return False


def training_data(
    dataset: ToyImages | None = None,
    *,
    task: ToyTask = TASK,
    rank: int = 0,
    size: int = 1,
    start_step: int = 0,
    plan: MicroBatchPlan | None = None,
    **changes: object,
) -> TrainingData:
    """Build the training data of one rank; 21 augmented images by default.

    changes: of CONFIG.
    """
    dataset = dataset or ToyImages(21, split="train", augment=True)
    config = replace(CONFIG, **changes)
    return TrainingData(task, dataset, config, World(rank, rank, size, CPU), start_step, plan)


def content_of(batch: Batch) -> tuple[int, int, list[int], bytes, list[int]]:
    """Return (step, offset, sample ids, bytes of the images, labels) of a micro-batch."""
    pixels = batch["pixel_values"].numpy().tobytes()
    return batch.step, batch.offset, batch["sample_ids"].tolist(), pixels, batch["labels"].tolist()


@contextmanager
def kill_workers_that_are_left() -> Iterator[None]:
    """Kill the workers that outlive a test: they would keep pytest from ending."""
    yield
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's own reports a killed worker
    for worker in multiprocessing.active_children():
        worker.kill()
        worker.join()
    signal.signal(signal.SIGCHLD, handler)
