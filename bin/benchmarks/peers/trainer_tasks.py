"""transformers' Trainer on every task: its models and losses, torchvision's transforms."""

import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
import transformers
from PIL import Image
from torch.nn import functional as F
from torchvision import tv_tensors
from torchvision.transforms import v2
from transformers import Trainer

from visionloop.bin.benchmarks.peers.recipes import NUM_POINTS, SMALLEST_CROP, UPSCALE_FACTOR, Case
from visionloop.bin.benchmarks.peers.trainer_process import Samples, Save, run_trainer
from visionloop.bin.benchmarks.results import Row, Value
from visionloop.datasets.segmentation.mask_values import IGNORED
from visionloop.datasets.segmentation.masks import read_mask
from visionloop.datasets.segments.index import Kind
from visionloop.datasets.segments.layers import segment_masks
from visionloop.datasets.segments.reading import read_segments
from visionloop.datasets.super_resolution.dataset import open_pairs
from visionloop.tasks.classification.export import save_folder as save_classifier
from visionloop.tasks.classification.model import build_model
from visionloop.tasks.classification.processor import initial_transform
from visionloop.tasks.detection.data import index_split as index_detection
from visionloop.tasks.detection.export import save_folder as save_detector
from visionloop.tasks.detection.model import new_config as new_detection_config
from visionloop.tasks.huggingface.hub import ModelSource
from visionloop.tasks.huggingface.loading import name_classes, quiet_transformers
from visionloop.tasks.segmentation.export import IMAGENET_MEAN, IMAGENET_STD, write_processor
from visionloop.tasks.segmentation.model import new_config as new_segmentation_config
from visionloop.tasks.segmentation.segments.data import index_split as index_segments
from visionloop.tasks.segmentation.segments.things import write_is_thing
from visionloop.tasks.segmentation.semantic.data import index_split as index_segmentation
from visionloop.tasks.super_resolution.data import index_split as index_super_resolution
from visionloop.tasks.super_resolution.model import new_config as new_super_resolution_config

Train = Callable[[Case, str], tuple[Row, Save]]
CROP_RATIO = (0.75, 1.8)  # of segmentation: width over height, before the resize to a square
JITTER = 0.2  # of brightness, contrast and saturation


def train_classification(case: Case, data: str) -> tuple[Row, Save]:
    """Train on folders of images, as in transformers' image-classification example."""
    from datasets import load_dataset  # not in the memory of the other tasks

    train_set = load_dataset("imagefolder", data_dir=data, split="train")
    model, processor = new_classifier(train_set.features["label"].names, case.image_size)
    scale = (SMALLEST_CROP["classification"], 1.0)
    augment = v2.Compose([
        v2.RandomResizedCrop(case.image_size, scale=scale),
        v2.RandomHorizontalFlip(case.hflip / 2), v2.PILToTensor(),
        v2.ToDtype(torch.float32, scale=True), v2.Normalize(processor.mean, processor.std),
    ])  # fmt: skip

    def prepare(rows: Row) -> Row:
        pixels = [augment(image.convert("RGB")) for image in rows["image"]]
        return {"pixel_values": pixels, "labels": [torch.tensor(label) for label in rows["label"]]}

    train_set.set_transform(prepare)
    return run_trainer(case, model, train_set), partial(save_vit, model, processor)


def new_classifier(classes: Sequence[str], image_size: int) -> tuple[torch.nn.Module, Value]:
    """Return (transformers' ViT of `tiny` with random weights, its evaluation transform)."""
    source = ModelSource("tiny", None, weights=False)
    model = build_model(source, classes, image_size=image_size)
    # transformers' own default: our attention is for visionloop alone
    model.set_attn_implementation("sdpa")
    return model, initial_transform(None, image_size)


def save_vit(model: torch.nn.Module, processor: Value, folder: Path) -> None:
    save_classifier(model, model.state_dict(), folder, processor)


def train_detection(case: Case, data: str) -> tuple[Row, Save]:
    """Train transformers' D-FINE with its own loss; boxes are cxcywh in 0..1."""
    index, size = index_detection(data, "train"), case.image_size
    transform = v2.Compose([
        v2.RandomPhotometricDistort(), v2.RandomHorizontalFlip(case.hflip / 2),
        v2.Resize((size, size)),
        v2.SanitizeBoundingBoxes(min_size=1), v2.ToImage(), v2.ToDtype(torch.float32, scale=True),
    ])  # fmt: skip

    def make(i: int) -> Row:
        image = Image.open(index.path(i)).convert("RGB")
        boxes_xywh, class_ids, crowd, _ = index.boxes_of(i)
        boxes = tv_tensors.BoundingBoxes(
            torch.from_numpy(boxes_xywh[~crowd]), format="XYWH", canvas_size=image.size[::-1]
        )
        target = {"boxes": boxes, "labels": torch.from_numpy(class_ids[~crowd]).long()}
        image, target = transform(image, target)
        boxes = v2.functional.convert_bounding_box_format(target["boxes"], new_format="CXCYWH")
        boxes = boxes.as_subclass(torch.Tensor).float() / size
        labels = {"class_labels": target["labels"], "boxes": boxes}
        return {"pixel_values": image, "labels": labels}

    config = new_detection_config("tiny")
    config.auxiliary_loss, config.freeze_backbone_batch_norms = True, False
    config.initializer_bias_prior_prob = 0.01
    name_classes(config, index.classes)
    model = transformers.DFineForObjectDetection(config)
    figures = run_trainer(case, model, Samples(index, make))
    return figures, lambda folder: save_detector(model, model.state_dict(), folder, size)


def train_segmentation(case: Case, data: str) -> tuple[Row, Save]:
    """Train transformers' EoMT with its own loss; a mask of 0 and 1 per class of the image."""
    index = index_segmentation(data, "train")
    transform = segmentation_transform(case)

    def make(i: int) -> Row:
        image = v2.functional.pil_to_tensor(Image.open(index.path(i)).convert("RGB"))
        mask = tv_tensors.Mask(read_mask(index.mask_path(i), index.class_file))
        image, ids = transform(tv_tensors.Image(image), mask)
        classes = ids.unique()
        classes = classes[classes != IGNORED].long()
        masks = (ids == classes[:, None, None]).float()
        return {"pixel_values": image, "mask_labels": masks, "class_labels": classes}

    model = new_segmenter(case, index.classes)
    figures = run_trainer(case, model, Samples(index, make))
    return figures, partial(save_segmenter, model, case)


def train_segments(case: Case, data: str, kind: Kind) -> tuple[Row, Save]:
    """Train transformers' EoMT with its own loss; a mask of 0 and 1 per segment of the image."""
    index = index_segments(data, "train", kind)
    transform = segmentation_transform(case)

    def make(i: int) -> Row:
        image, layers, segments, _, _ = read_segments(index, i)
        masks = tv_tensors.Mask(segment_masks(layers, segments))
        image, masks = transform(tv_tensors.Image(image), masks)
        present = masks.flatten(1).any(1)
        masks, classes = masks[present].float(), segments[present, 2]
        return {"pixel_values": image, "mask_labels": masks, "class_labels": classes}

    model = new_segmenter(case, index.classes)
    write_is_thing(model.config, index.is_thing)
    figures = run_trainer(case, model, Samples(index, make))
    return figures, partial(save_segmenter, model, case)


def segmentation_transform(case: Case) -> v2.Transform:
    """Return the augmentation of an image with masks."""
    scale = (SMALLEST_CROP[case.task], 1.0)
    return v2.Compose([
        v2.RandomResizedCrop(case.image_size, scale=scale, ratio=CROP_RATIO),
        v2.RandomHorizontalFlip(case.hflip / 2), v2.ColorJitter(JITTER, JITTER, JITTER),
        v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
        v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
    ])  # fmt: skip


def new_segmenter(case: Case, classes: Sequence[str]) -> torch.nn.Module:
    """Return transformers' EoMT of `tiny` with random weights."""
    config = new_segmentation_config("tiny")
    config.image_size, config.train_num_points = case.image_size, NUM_POINTS
    config.num_queries = case.num_queries or config.num_queries
    name_classes(config, classes)
    return transformers.EomtForUniversalSegmentation(config)


def save_segmenter(model: torch.nn.Module, case: Case, folder: Path) -> None:
    save_pretrained(model, folder)
    write_processor(folder, case.image_size, whole_images=case.task != "segmentation")


def save_pretrained(model: Value, folder: Path) -> None:
    with quiet_transformers():
        model.save_pretrained(folder)


class L1Trainer(Trainer):
    """Minimises the L1 distance to the high-resolution image; Swin2SR has no loss of its own."""

    def compute_loss(
        self, model: torch.nn.Module, inputs: Row, return_outputs: bool = False, **_: Value
    ) -> Value:
        outputs = model(pixel_values=inputs["pixel_values"])
        loss = F.l1_loss(outputs.reconstruction, inputs["hr"])
        return (loss, outputs) if return_outputs else loss


def train_super_resolution(case: Case, data: str) -> tuple[Row, Save]:
    """Train transformers' Swin2SR on random crops in one of eight orientations, 0..1."""
    pairs = open_pairs(index_super_resolution(data, "train", UPSCALE_FACTOR), "none")

    def make(i: int) -> Row:
        low, high = pairs.whole(i)
        top, left = (random.randint(0, side - case.image_size) for side in low.shape[:2])
        rotations, flipped = random.randrange(4), random.random() < 0.5
        sample = {}
        for name, image, scale in (("pixel_values", low, 1), ("hr", high, UPSCALE_FACTOR)):
            rows = slice(scale * top, scale * (top + case.image_size))
            columns = slice(scale * left, scale * (left + case.image_size))
            crop = torch.from_numpy(image[rows, columns].copy())
            pixels = crop.permute(2, 0, 1).rot90(rotations, (1, 2))
            sample[name] = (pixels.flip(-1) if flipped else pixels).float() / 255
        return sample

    config = new_super_resolution_config("tiny", UPSCALE_FACTOR, case.image_size)
    model = transformers.Swin2SRForImageSuperResolution(config)
    figures = run_trainer(case, model, Samples(pairs.index, make), L1Trainer)
    return figures, partial(save_pretrained, model)


TRAIN: dict[str, Train] = {
    "classification": train_classification, "detection": train_detection,
    "segmentation": train_segmentation, "super_resolution": train_super_resolution,
    "instance_segmentation": partial(train_segments, kind="instance"),
    "panoptic_segmentation": partial(train_segments, kind="panoptic"),
}  # fmt: skip
