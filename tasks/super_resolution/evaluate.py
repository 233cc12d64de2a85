"""From what the network says to an image of bytes, and what the scores mean."""

import logging
from functools import lru_cache

import torch

from visionloop.engine.metric import MetricSpec
from visionloop.tasks.super_resolution.tiling import choose_tiling, to_bytes, upscale

METRICS = (
    MetricSpec(
        "psnr",
        "PSNR",
        "float",
        True,
        "dB on Y, a border as wide as the scale cut off, mean over images",
    ),
    MetricSpec(
        "ssim",
        "SSIM",
        "float",
        True,
        "structural similarity on Y, 11 x 11 Gaussian, the same border, mean over images",
    ),
    MetricSpec(
        "psnr_rgb",
        "PSNR of RGB",
        "float",
        True,
        "dB over the three channels, 1.5 to 3 lower than on Y",
    ),
    MetricSpec("ssim_rgb", "SSIM of RGB", "float", True, "mean over the three channels"),
    MetricSpec(
        "lpips",
        "LPIPS",
        "float",
        False,
        "distance of AlexNet features, v0.1; needs --lpips-weights",
    ),
    MetricSpec(
        "val_loss",
        "validation loss",
        "float",
        False,
        "the training loss between pixels, of whole images",
    ),
)
log = logging.getLogger(__name__)


def predict(module, batch, *, criterion=None, tile=None, halo=None, ensemble=1):
    """{"images": [uint8 [3, s*h, s*w]], "tilings": [Tiling], "losses": float32 [B] where the batch has "hr" and there is a criterion}.

    Image by image, in fp32: 8-bit rounding alone is 58.9 dB, and bf16 would be 46 dB from fp32.
    batch: "pixel_values", and "hr" or not, uint8 [3, h, w] of any sizes; criterion: of loss.py;
    tile, halo, ensemble: of tiles.py. Without "hr" images lie in host memory and never exist as
    floats.
    """
    images, losses, tilings = [], [], []
    with_loss = criterion is not None and "hr" in batch
    for i, pixels in enumerate(batch["pixel_values"]):
        tilings.append(choose_tiling(module, *pixels.shape[-2:], tile=tile, halo=halo))
        if not tilings[-1].exact:
            warn_once(tilings[-1].sentence())
        found = upscale(
            module, pixels, tile=tile, halo=halo, ensemble=ensemble, as_bytes=not with_loss
        )
        if with_loss:
            hr = batch["hr"][i][None].float() / 255
            losses.append(criterion({"sr": found[None], "aux": None}, hr)["loss_pixel"])
        images.append(to_bytes(found) if with_loss else found)
    predictions = {"images": images, "tilings": tilings}
    return predictions | {"losses": torch.stack(losses)} if with_loss else predictions


@lru_cache
def warn_once(sentence):
    """Said at the first image that it is true of."""
    log.warning(sentence)
