"""Clocks for batches: the engine's stages, its loader, and torchvision's transforms.

Stages and pipelines are timed in CPU seconds of this process: the work of one core, whoever else
uses the machine. Loaders are timed by the wall clock.
"""

import copy
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from PIL import Image, ImageOps
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2

from visionloop.bin.benchmarks.repeated_step import fetch
from visionloop.bin.benchmarks.results import Row, Value
from visionloop.bin.benchmarks.tasks import build_task
from visionloop.datasets.segments.layers import segment_masks
from visionloop.datasets.segments.reading import read_segments
from visionloop.engine.config.train_config import TrainConfig
from visionloop.engine.data.loader import TrainingData
from visionloop.engine.distributed import World
from visionloop.engine.errors import UserError
from visionloop.engine.seeding import COLLATE, SAMPLE, seed_host

COLOR_JITTER = {"brightness": 0.125, "contrast": 0.5, "saturation": 0.5, "hue": 0.05}  # EoMT's
# torchvision's work beside the engine's
DOES = {
    "classification": "equal work: PIL, then RandomResizedCrop, flip, ToTensor, Normalize",
    "detection": "equal work: PIL, then v2 on tensors with boxes: photometric distortion, zoom out,"
    " IoU crop, flip, resize, sanitize",
    "segmentation": "about equal work, a crop instead of scale, crop and padding: PIL, then v2 with"
    " the mask: RandomResizedCrop, flip, ColorJitter by chance, Normalize",
    **dict.fromkeys(
        ("instance_segmentation", "panoptic_segmentation"),
        "as segmentation, with a mask for each segment; image and outlines are read by the engine",
    ),
    "super_resolution": "equal work: PIL: decode, crop, bicubic where there is no low-resolution"
    " image (the engine: MATLAB's, exact), flips and a rotation; then ToTensor",
}
# of the functions below; tasks and datasets have attributes of their own
Make = Callable[[int], Row]


def build_training_data(task_name: str, flags: Row) -> tuple[Value, Value, TrainConfig]:
    """Return (task, training set, TrainConfig) as `train` would build them on a CPU."""
    # so many steps that augmentation stays what it is at the start of a run
    built = build_task(task_name, flags | {"steps": 1_000_000, "device": "cpu"})
    config = built.resolved.train_config
    return built.task, built.train_set, replace(config, micro_batch=config.batch_size)


class Timed:
    """Wraps a callable object and sums the CPU seconds of its calls and of its methods' calls."""

    def __init__(self, wrapped: Value) -> None:
        self.wrapped, self.seconds = wrapped, 0.0

    def __call__(self, *args: Value, **kwargs: Value) -> Value:
        return self._timed(self.wrapped, *args, **kwargs)

    def __getattr__(self, name: str) -> Value:
        value = getattr(self.wrapped, name)
        return partial(self._timed, value) if callable(value) else value

    def _timed(self, function: Value, *args: Value, **kwargs: Value) -> Value:
        began = time.process_time()
        result = function(*args, **kwargs)
        self.seconds += time.process_time() - began
        return result


def time_stages(task: Value, dataset: Value, indices: Sequence[int], turn: int) -> Row:
    """Make a batch of the engine under a seed of this turn and return {stage: seconds}.

    Raises UserError for an image that cannot be read.
    """
    dataset = copy.copy(dataset)
    dataset.transform = Timed(dataset.transform)
    task.before_sample(0, 1)
    samples, began = [], time.process_time()
    for index in indices:
        seed_host(SAMPLE, 0, turn, index)
        try:
            samples.append(dataset[index] | {"sample_id": torch.tensor(index)})
        except OSError as error:
            name = dataset.name(index)
            raise UserError(str(error), code="unreadable_sample", file=name) from None
    made, transform = time.process_time(), dataset.transform.seconds
    seed_host(COLLATE, 0, turn, 0)
    batch = task.collate(samples, turn, 0)
    collated = time.process_time()
    task.to_input(batch)
    return {
        "read": made - began - transform, "transform": transform, "collate": collated - made,
        "to_input": time.process_time() - collated,
    }  # fmt: skip


def time_samples(make: Make, indices: Sequence[int], turn: int) -> Row:
    """Make samples under a seed of this turn, stack them and return {"batch": seconds}."""
    random.seed(turn)
    torch.manual_seed(turn)
    began = time.process_time()
    stack_samples([make(i) for i in indices])
    return {"batch": time.process_time() - began}


def stack_samples(samples: Sequence[Row]) -> Row:
    """Return a batch; boxes, masks and classes, whose number differs by image, are lists."""
    batch: Row = {name: [sample[name] for sample in samples] for name in samples[0]}
    for name in batch.keys() - {"boxes", "masks", "class_labels"}:
        batch[name] = torch.stack(batch[name])
    return batch


def time_loader(
    task: Value, dataset: Value, config: TrainConfig, workers: int, batches: int, turn: int
) -> Row:
    """Return {"batch": seconds} of the engine's TrainingData; its order does not depend on turn.

    Started again in each round: idle data workers would work ahead of the clock.
    """
    world = World(0, 0, 1, torch.device("cpu"))
    loader = TrainingData(task, dataset, replace(config, workers=workers), world, 0)
    try:
        for _ in range(1 + 2 * workers):  # each worker has made its first batch by then
            fetch(loader)
        began = time.perf_counter()
        for _ in range(batches):
            fetch(loader)
        return {"batch": (time.perf_counter() - began) / batches}
    finally:
        loader.close()


def make_classification(task: Value, dataset: Value) -> Make:
    index, evaluation, config = dataset.index, task.eval_transform, task.config
    interpolation = InterpolationMode(evaluation.interpolation)
    crop = v2.RandomResizedCrop(
        evaluation.size, scale=(config.crop_scale_min, 1), interpolation=interpolation
    )
    steps = [crop, v2.RandomHorizontalFlip(0.5 if config.hflip else 0)]
    if config.rand_augment_ops:
        steps.append(v2.RandAugment(config.rand_augment_ops, config.rand_augment_magnitude))
    transform = v2.Compose([*steps, to_float, v2.Normalize(evaluation.mean, evaluation.std)])
    erasing = v2.RandomErasing(config.random_erasing, scale=(0.02, 1 / 3), value="random")

    def make(i: int) -> Row:
        pixels = erasing(transform(Image.open(index.path(i)).convert("RGB")))
        return {"pixel_values": pixels, "labels": torch.tensor(int(index.labels[i]))}

    return make


def make_detection(task: Value, dataset: Value) -> Make:
    config, side, index = task.config, task.image_size, dataset.index
    sanitize = v2.SanitizeBoundingBoxes(min_size=1)
    transform = v2.Compose([
        v2.RandomPhotometricDistort(p=config.photometric), v2.RandomZoomOut(p=config.zoom_out),
        v2.RandomApply([v2.RandomIoUCrop()], p=config.iou_crop), sanitize,
        v2.RandomHorizontalFlip(0.5 if config.hflip else 0), v2.Resize([side, side]), sanitize,
    ])  # fmt: skip

    def make(i: int) -> Row:
        """Return a sample: boxes cxcywh in 0..1, pixels in 0..1 without mean and std."""
        image = v2.functional.to_image(Image.open(index.path(i)).convert("RGB"))
        boxes, ids, crowd, _ = index.boxes_of(i)
        size = dict(format="XYWH", canvas_size=image.shape[-2:], dtype=torch.float32)
        boxes = tv_tensors.BoundingBoxes(boxes[~crowd], **size)
        boxes = v2.functional.convert_bounding_box_format(boxes, new_format="XYXY")
        labels = torch.from_numpy(ids[~crowd].astype("int64"))
        sample = transform({"image": image, "boxes": boxes, "labels": labels})
        boxes = v2.functional.convert_bounding_box_format(sample["boxes"], new_format="CXCYWH")
        boxes = boxes.as_subclass(torch.Tensor) / side
        pixels = to_float(sample["image"])
        return {"pixel_values": pixels, "boxes": boxes, "class_labels": sample["labels"]}

    return make


def make_segmentation(task: Value, dataset: Value) -> Make:
    index, transform = dataset.index, segmentation_transform(task)

    def make(i: int) -> Row:
        """Return a sample whose mask values are taken as class ids; the engine maps them to ids."""
        with Image.open(index.mask_path(i)) as mask:
            ids = tv_tensors.Mask(np.array(mask))
        image = v2.functional.to_image(Image.open(index.path(i)).convert("RGB"))
        pixels, ids = (part.as_subclass(torch.Tensor) for part in transform(image, ids))
        return {"pixel_values": pixels, "ids": ids}

    return make


def make_segments(task: Value, dataset: Value) -> Make:
    index, transform = dataset.index, segmentation_transform(task)

    def make(i: int) -> Row:
        """Return a sample with a mask per segment; image and outlines are read by the engine."""
        image, layers, segments, _, _ = read_segments(index, i)
        masks = tv_tensors.Mask(segment_masks(layers, segments))
        pixels, masks = (
            part.as_subclass(torch.Tensor) for part in transform(tv_tensors.Image(image), masks)
        )
        return {"pixel_values": pixels, "masks": masks, "class_labels": segments[:, 2]}

    return make


def segmentation_transform(task: Value) -> v2.Transform:
    """Return torchvision's counterpart of EoMT's augmentation, of an image with masks."""
    config, side = task.config, task.image_size
    mean, std = (list(numbers) for numbers in task.pixel_statistics)
    jitter = [v2.ColorJitter(**{name: width}) for name, width in COLOR_JITTER.items()]
    return v2.Compose([
        v2.RandomResizedCrop(side, scale=(min(1, 1 / config.scale_max**2), 1)),
        v2.RandomHorizontalFlip(0.5 if config.hflip else 0),
        *(v2.RandomApply([change], p=config.color) for change in jitter),
        v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
        v2.Normalize(mean, std),
    ])  # fmt: skip


def make_super_resolution(task: Value, dataset: Value) -> Make:
    index, patch, scale = dataset.pairs.index, task.patch, dataset.pairs.index.scale
    rotate = partial(Image.Image.rotate, angle=90, expand=True)

    def make(i: int) -> Row:
        high = Image.open(index.path(i)).convert("RGB")
        left = random.randint(0, high.width // scale - patch)
        top = random.randint(0, high.height // scale - patch)
        box = (left, top, left + patch, top + patch)
        high = high.crop((scale * left, scale * top, scale * box[2], scale * box[3]))
        if index.lr_folder:
            low = Image.open(index.lr_path(i)).convert("RGB").crop(box)
        else:
            low = high.resize((patch, patch), Image.Resampling.BICUBIC)
        for change in (ImageOps.mirror, ImageOps.flip, rotate):
            if random.random() < 0.5:
                low, high = change(low), change(high)
        return {"pixel_values": to_float(low), "hr": to_float(high)}

    return make


MAKE_SAMPLES = {
    "classification": make_classification, "detection": make_detection,
    "segmentation": make_segmentation, "instance_segmentation": make_segments,
    "panoptic_segmentation": make_segments, "super_resolution": make_super_resolution,
}  # fmt: skip


def to_float(image: Value) -> torch.Tensor:
    """Return float32 [3, H, W] in 0..1 of a Pillow image or a tensor."""
    tensor = image if isinstance(image, torch.Tensor) else v2.functional.pil_to_tensor(image)
    return v2.functional.to_dtype(tensor, torch.float32, scale=True).as_subclass(torch.Tensor)
