"""What an index of images keeps in memory, in the training process and in each worker, which gets a copy of it.

The entries are made up, so that no files are needed; the columns are those of the tasks' own
indexes, the loader is the engine's. Measured once every worker has made samples: by then it
has unpickled its copy, read ids in it and drawn the order of an epoch.
"""

import os
import statistics
from types import SimpleNamespace

import numpy as np
import torch

from visionloop.bin.benchmarks.pipelines.proportional_memory import descendants, proportional_mib
from visionloop.bin.benchmarks.pipelines.stages import CPU, fetch
from visionloop.bin.benchmarks.tasks import load_task_class
from visionloop.engine.batch import Batch
from visionloop.engine.config.train_config import TrainConfig
from visionloop.engine.data.forkserver import start_fork_server
from visionloop.engine.data.loader import TrainingData
from visionloop.engine.system.memory import keep_freed_memory

COLUMNS = {
    "columns_mib": "the index's own arrays and paths, once",
    "total_mib": "proportional memory of the training process, the workers and their server",
    "worker_mib": "of it, a worker, median",
    "index_mib": "total_mib less the same with an index of one entry",
    "index_mib_per_worker": "of it, what each worker adds",
}
BOXES = 7  # of an image: COCO's training split has 7.3
NAME = b"class_0000/image_00000000.jpg"
DIGITS = 8
BATCH_SIZE = 64


def measure_index_memory(task_name, index_size, workers):
    """[{figure: value}] for each number of workers, in rising order; MiB. Raises UserError on systems other than Linux."""
    proportional_mib()
    load_task_class(task_name)
    start_fork_server()  # as in a run: once everything is imported, before the index is there
    keep_freed_memory()
    workers = sorted(set(workers))
    nothing = resident(INDEXES[task_name](1), workers)
    index = INDEXES[task_name](index_size)
    whole = resident(index, workers)
    rows, alone = [], whole[workers[0]][0] - nothing[workers[0]][0]
    for number in workers:
        (total, worker), index_mib = whole[number], whole[number][0] - nothing[number][0]
        rows.append({
            "part": "index",
            "index_size": index_size,
            "workers": number,
            "columns_mib": round(columns_mib(index), 1),
            "total_mib": round(total, 1),
            "worker_mib": None if worker is None else round(worker, 1),
            "index_mib": round(index_mib, 1),
            "index_mib_per_worker": round((index_mib - alone) / number, 1) if number and not workers[0] else None,
        })  # fmt: skip
    return rows


def resident(index, workers):
    """{number of workers: (MiB of all processes, MiB of a worker or None)}."""
    found = {}
    for number in workers:
        config = TrainConfig(
            steps=10**9, batch_size=BATCH_SIZE, micro_batch=BATCH_SIZE, workers=number
        )
        loader = TrainingData(EntryTask, Entries(index), config, CPU, 0)
        try:
            for _ in range(2 * number + 1):
                fetch(loader)
            own = os.getpid()
            below = descendants(own)
            sizes = {pid: proportional_mib(pid) for pid in (own, *below)}
            grandchildren = [sizes[pid] for pid, parent in below.items() if parent != own]
        finally:
            loader.close()
        found[number] = (
            sum(sizes.values()),
            statistics.median(grandchildren) if grandchildren else None,
        )
    return found


class Entries(torch.utils.data.Dataset):
    """Samples that read everything which an index says of an entry, and no file."""

    def __init__(self, index):
        self.index = index

    def __len__(self):
        return len(self.index)

    def __getitem__(self, i):
        boxes = self.index.boxes_of(i)[0] if hasattr(self.index, "boxes_of") else ()
        return {"letters": torch.tensor(len(self.index.path(i)) + len(boxes))}

    def name(self, i):
        return self.index.path(i)


def collate(samples, step, offset):
    return Batch(
        {"sample_ids": torch.stack([sample["sample_id"] for sample in samples])},
        step=step,
        offset=offset,
    )


def before_sample(step, steps):
    """Nothing changes during the run."""


EntryTask = SimpleNamespace(
    collate=collate, before_sample=before_sample
)  # as much of a task as a loader asks for


def made_up_paths(number):
    """(bytes, starts, stops): so many paths of equal length, each with a number of its own."""
    letters = np.frombuffer(NAME * number, dtype=np.uint8).reshape(number, len(NAME)).copy()
    last = NAME.index(b".") - 1
    for place in range(DIGITS):
        letters[:, last - place] = ord("0") + np.arange(number) // 10**place % 10
    starts = len(NAME) * np.arange(number)
    return letters.tobytes(), starts, starts + len(NAME)


def classification_index(number):
    from visionloop.datasets.classification.image_folder import ImageFolderIndex

    classes = tuple(f"class_{label:04}" for label in range(1000))
    return ImageFolderIndex(
        "train",
        classes,
        *made_up_paths(number),
        labels=np.arange(number) % 1000,
        sizes=np.full(number, 110_000),
    )


def detection_index(number):
    from visionloop.datasets.detection.index import DetectionIndex

    paths, starts, stops = made_up_paths(number)
    boxes = BOXES * number
    return DetectionIndex(
        "train.json", "train", tuple(f"class {label}" for label in range(80)), tuple(range(80)), paths, starts, stops,
        image_ids=np.arange(number), sizes_hw=np.full((number, 2), 480), offsets=BOXES * np.arange(number + 1),
        boxes=np.ones((boxes, 4)), labels=np.zeros(boxes, dtype=np.int32), crowd=np.zeros(boxes, dtype=bool), areas=np.ones(boxes),
    )  # fmt: skip


def segmentation_index(number):
    from visionloop.datasets.segmentation.class_file import ClassFile
    from visionloop.datasets.segmentation.dataset import SegmentationIndex

    (paths, starts, stops), (mask_paths, mask_starts, mask_stops) = (
        made_up_paths(number),
        made_up_paths(number),
    )
    sizes, mask_sizes = np.full(number, 110_000), np.full(number, 9000)
    classes = tuple(f"class {label}" for label in range(150))
    table, known = np.zeros(2**16, dtype=np.uint8), np.ones(2**16, dtype=bool)
    class_file = ClassFile(
        "classes.json", classes, None, 255, table, known, {}, other_colors=False, palette=None
    )
    return SegmentationIndex(
        "images",
        "masks",
        class_file,
        paths,
        starts,
        stops,
        mask_paths,
        mask_starts,
        mask_stops,
        sizes,
        mask_sizes,
    )


def super_resolution_index(number):
    from visionloop.datasets.super_resolution.layout import SuperResolutionIndex

    sides = made_up_paths(number), made_up_paths(number)
    large, small = ((*paths, np.full(number, 110_000)) for paths in sides)
    return SuperResolutionIndex("HR", 2, *large, "LR_x2", *small)


INDEXES = {
    "classification": classification_index,
    "detection": detection_index,
    "segmentation": segmentation_index,
    "super_resolution": super_resolution_index,
}


def columns_mib(index):
    """MiB of an index's arrays and paths."""
    return sum(value.nbytes if isinstance(value, np.ndarray) else len(value) if isinstance(value, bytes) else 0
               for value in vars(index).values()) / 2**20  # fmt: skip
