"""The heads of Swin2SR over the layers of transformers: the image and the auxiliary image.

transformers computes the same but for two heads. Without an upsampler it divides the input by
`img_range` and adds the mean once more. With `pixelshuffle_aux` it resizes the raw input where the
authors resize the normalized one, and drops the auxiliary image. Source: models/network_swin2sr.py
of `mv-lab/swin2sr`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel

if TYPE_CHECKING:
    from visionloop.tasks.super_resolution.network import Swin2SRForImageSuperResolution

DIFFERENT_HEADS = ("", "pixelshuffle_aux")  # where transformers differs from the authors' network


def reconstruct(
    module: Swin2SRForImageSuperResolution, features: torch.Tensor, pixel_values: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Compute the output of a head in fp32, not clamped.

    Args:
        module: the network; its `official_heads` decides between the two ways of DIFFERENT_HEADS.
        features: output of the body, [B, C, H, W].
        pixel_values: input of the body, [B, 3, H, W] in 0..1.

    Returns:
        (image [B, 3, s*H, s*W], auxiliary image [B, 3, H, W] or None).
    """
    body, kind = module.swin2sr, module.upsampler
    if kind == "pixelshuffle_aux":
        raw, raw_aux = _pixelshuffle_aux(module, features, pixel_values)
        return raw / body.img_range + body.mean, raw_aux / body.img_range + body.mean
    if kind == "":
        residual = conv_in_fp32(module.final_convolution, features)
        if module.official_heads:
            # (x - mean) * range + residual, back in 0..1: mean and range cancel out
            return pixel_values + residual / body.img_range, None
        return (pixel_values + residual) / body.img_range + body.mean, None
    raw = HEADS[kind](module.upsample, features)
    return raw / body.img_range + body.mean, None


def conv_in_fp32(convolution: nn.Module, features: torch.Tensor) -> torch.Tensor:
    """Apply the last layer outside of autocast: bf16 rounds bright pixels to whole gray levels."""
    with torch.autocast(features.device.type, enabled=False):
        output: torch.Tensor = convolution(features.float())
    return output


def _pixelshuffle(head: PreTrainedModel, features: torch.Tensor) -> torch.Tensor:
    x = head.upsample(head.activation(head.conv_before_upsample(features)))
    return conv_in_fp32(head.final_convolution, x)


def _pixelshuffledirect(head: PreTrainedModel, features: torch.Tensor) -> torch.Tensor:
    image: torch.Tensor = head.pixel_shuffle(conv_in_fp32(head.conv, features))
    return image


def _nearest_conv(head: PreTrainedModel, features: torch.Tensor) -> torch.Tensor:
    x = head.activation(head.conv_before_upsample(features))
    for convolution in (head.conv_up1, head.conv_up2):
        x = head.lrelu(convolution(F.interpolate(x, scale_factor=2, mode="nearest")))
    return conv_in_fp32(head.final_convolution, head.lrelu(head.conv_hr(x)))


HEADS: dict[str, Callable[[PreTrainedModel, torch.Tensor], torch.Tensor]] = {
    "pixelshuffle": _pixelshuffle,
    "pixelshuffledirect": _pixelshuffledirect,
    "nearest+conv": _nearest_conv,
}


def _pixelshuffle_aux(
    module: Swin2SRForImageSuperResolution, features: torch.Tensor, pixel_values: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute (image, auxiliary image) in the range of the network, with the mean subtracted.

    The authors resize the padded input to the size of the unpadded one, which squeezes it; their
    test script pads before the call, so nothing is squeezed there, nor here.
    """
    head, body = module.upsample, module.swin2sr
    height, width = pixel_values.shape[-2:]
    source = (pixel_values - body.mean) * body.img_range if module.official_heads else pixel_values
    large = F.interpolate(
        source,
        size=(height * module.upscale, width * module.upscale),
        mode="bicubic",
        align_corners=False,
    )
    aux = conv_in_fp32(head.conv_aux, head.activation(head.conv_before_upsample(features)))
    x = head.upsample(head.conv_after_aux(aux)) + head.conv_bicubic(large)
    return conv_in_fp32(head.final_convolution, x), aux


def head_reach(upsampler: str, scale: int) -> int:
    """Return the input pixels to each side that a head's 3 x 3 convolutions read around a pixel."""
    if upsampler in ("", "pixelshuffledirect"):
        return 1
    if upsampler == "nearest+conv":
        reach = (3 + 1) // 2 + 1  # conv_up2, conv_hr and the last at x4, then conv_up1 at x2
        return (reach + 1) // 2 + 1
    reach, factors = 1, [scale] if scale == 3 else [2] * (scale.bit_length() - 1)
    for factor in factors:
        reach = -(-reach // factor) + 1
    return reach + (3 if upsampler == "pixelshuffle_aux" else 1)
