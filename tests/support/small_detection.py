"""Small detection tasks for checks that start other processes, which import this module."""

import os
from dataclasses import replace

from visionloop.tasks.detection.config import DetectionConfig
from visionloop.tasks.detection.task import DetectionTask

# small images, whose feature positions are just enough for the queries
QUIET = DetectionConfig(
    model="tiny",
    from_scratch=True,
    image_size=96,
    backbone_bn="frozen",
    denoising=0,
    photometric=0.0,
    zoom_out=0.0,
    iou_crop=0.0,
)


class FrozenNorms(DetectionTask):
    """BatchNorm of the encoder is frozen too: its statistics depend on the micro-batch."""

    def build_model(self):
        module = super().build_model()
        for layer in module.modules():
            if hasattr(layer, "running_mean"):
                layer.eval()
        return module


def make_quiet_task():
    """Without noise; the environment variable SMALL_DETECTION_DATA is the data folder."""
    return FrozenNorms(replace(QUIET, data=os.environ["SMALL_DETECTION_DATA"]))


def make_task_without_union():
    """Only terms that accumulate exactly: the union of matches follows each forward."""
    return FrozenNorms(
        replace(
            make_quiet_task().config,
            weight_bbox=0.0,
            weight_giou=0.0,
            weight_fgl=0.0,
            weight_ddf=0.0,
        )
    )


class SecondHalfEmpty(FrozenNorms):
    """Without boxes from the fifth image of a global batch on: a second rank has none at all."""

    def collate(self, samples, step, offset):
        samples = [
            sample | {name: sample[name][:0] for name in ("class_labels", "boxes")}
            if offset + i >= 4
            else sample
            for i, sample in enumerate(samples)
        ]
        return super().collate(samples, step, offset)


def make_half_empty_task():
    return SecondHalfEmpty(make_quiet_task().config)


def make_noisy_task():
    """With denoising, all augmentation, several sizes, and a reload of the best weights."""
    noisy = replace(
        QUIET,
        data=os.environ["SMALL_DETECTION_DATA"],
        backbone_bn="trained",
        denoising=20,
        multi_scale=1,
        strong_share=0.6,
    )
    return DetectionTask(replace(noisy, photometric=0.5, zoom_out=0.5, iou_crop=0.5))
