"""The heads of Swin2SR over the library's parts: the image and, for compressed input, the auxiliary image at the input's size.

The library computes the same but for two heads: without an upsampler it divides the input by
`img_range` and adds the mean once more; with `pixelshuffle_aux` it resizes the raw input where the
authors resize what the network reads, and it drops the auxiliary image. Source:
models/network_swin2sr.py of `mv-lab/swin2sr`.
"""

import torch
from torch.nn import functional as F

DIFFERENT_HEADS = ("", "pixelshuffle_aux")  # where the library's answer is not the authors'


def reconstruct(module, features, pixel_values):
    """(image [B, 3, sH, sW], auxiliary image [B, 3, H, W] or None), fp32, neither clamped.

    features: [B, C, H, W] of the body; pixel_values: [B, 3, H, W] in 0..1, what the body was given;
    module: with the library's parts and `official_heads`, which says whose way of those two heads
    is followed.
    """
    body, kind = module.swin2sr, module.upsampler
    if kind == "pixelshuffle_aux":
        raw, raw_aux = _with_aux(module, features, pixel_values)
        return raw / body.img_range + body.mean, raw_aux / body.img_range + body.mean
    if kind == "":
        residual = in_fp32(module.final_convolution, features)
        if (
            module.official_heads
        ):  # (x - mean) * range + residual, back to 0..1: mean and range cancel out
            return pixel_values + residual / body.img_range, None
        return (pixel_values + residual) / body.img_range + body.mean, None
    raw = {"pixelshuffle": _pixelshuffle, "pixelshuffledirect": _direct, "nearest+conv": _nearest}[
        kind
    ](module.upsample, features)
    return raw / body.img_range + body.mean, None


def in_fp32(convolution, features):
    """The last layer outside of autocast: in bf16 bright pixels come in steps of a whole grey level."""
    with torch.autocast(features.device.type, enabled=False):
        return convolution(features.float())


def _pixelshuffle(head, features):
    return in_fp32(
        head.final_convolution, head.upsample(head.activation(head.conv_before_upsample(features)))
    )


def _direct(head, features):
    return head.pixel_shuffle(in_fp32(head.conv, features))


def _nearest(head, features):
    x = head.activation(head.conv_before_upsample(features))
    for convolution in (head.conv_up1, head.conv_up2):
        x = head.lrelu(convolution(F.interpolate(x, scale_factor=2, mode="nearest")))
    return in_fp32(head.final_convolution, head.lrelu(head.conv_hr(x)))


def _with_aux(module, features, pixel_values):
    """Both images as the network knows them, mean and range not yet undone.

    The authors resize the padded input to the size of the unpadded one, which squeezes it; their
    test script pads before the call, and so no size is squeezed there, nor here.
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
    aux = in_fp32(head.conv_aux, head.activation(head.conv_before_upsample(features)))
    x = head.upsample(head.conv_after_aux(aux)) + head.conv_bicubic(large)
    return in_fp32(head.final_convolution, x), aux


def head_reach(upsampler, scale):
    """Pixels of the input, to each side, that a head adds to what one pixel of the image depends on: its 3x3 convolutions."""
    if upsampler in ("", "pixelshuffledirect"):
        return 1
    if upsampler == "nearest+conv":
        reach = (3 + 1) // 2 + 1  # conv_up2, conv_hr and the last at x4, then conv_up1 at x2
        return (reach + 1) // 2 + 1
    reach, steps = 1, [scale] if scale == 3 else [2] * (scale.bit_length() - 1)
    for step in steps:
        reach = -(-reach // step) + 1
    return reach + (3 if upsampler == "pixelshuffle_aux" else 1)
