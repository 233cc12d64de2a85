"""A tiny super-resolution task, for checks whose processes import this module."""

import os
from dataclasses import replace

from visionloop.tasks.super_resolution.config import SuperResolutionConfig
from visionloop.tasks.super_resolution.model import new_config
from visionloop.tasks.super_resolution.task import SuperResolutionTask

SMALL = {"embed_dim": 12, "num_heads": [2, 2], "window_size": 4, "image_size": 8}
QUIET = SuperResolutionConfig(
    model="tiny", from_scratch=True, mode="classical", scale=2, patch_size=8, cache="none"
)


class SmallTask(SuperResolutionTask):
    """`tiny`, smaller; in compressed mode with the auxiliary head."""

    @property
    def model_config(self):
        config = new_config("tiny", self.config.scale)
        for name, value in SMALL.items():
            setattr(config, name, value)
        if self.config.mode == "compressed":
            config.upsampler = "pixelshuffle_aux"
        return config


def make_quiet_task():
    """Without noise; SMALL_SUPER_RESOLUTION_DATA is the data folder."""
    return SmallTask(replace(QUIET, data=os.environ["SMALL_SUPER_RESOLUTION_DATA"]))


def make_compressed_task():
    """JPEG of random quality, crops with a margin, three losses, the auxiliary head."""
    return SmallTask(replace(make_quiet_task().config, mode="compressed"))


def make_denoising_task():
    """Noise of random strength, the head without an upsampler, images cached on the disk."""
    return SmallTask(
        replace(
            make_quiet_task().config,
            mode="denoise",
            scale=1,
            noise="5-50",
            loss="charbonnier",
            cache="disk",
        )
    )
