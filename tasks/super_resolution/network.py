"""Swin2SR of transformers with another forward: any image size, auxiliary image, official heads."""

import torch
import transformers
from torch import nn
from torch.nn import functional as F

from visionloop.tasks.super_resolution.heads import head_reach, reconstruct
from visionloop.tasks.super_resolution.weight_conversion import is_plain


class Swin2SRForImageSuperResolution(transformers.Swin2SRForImageSuperResolution):
    """Swin2SR of transformers, whose own forward fails on sizes that windows do not divide.

    The class has the name of its parent because `save_pretrained` writes that name into
    config.json.

    Attributes:
        official_heads: compute the heads as the authors' network does where transformers differs
            (see heads.py). False computes what plain transformers does, for weights that were
            converted for it; config.json has a key for this.
    """

    def __init__(self, config: transformers.Swin2SRConfig) -> None:
        super().__init__(config)
        self.official_heads = not is_plain(config)

    def forward(self, pixel_values: torch.Tensor) -> dict[str, torch.Tensor | None]:
        """Upscale images.

        Args:
            pixel_values: [B, 3, h, w] in 0..1.

        Returns:
            {"sr": [B, 3, s*h, s*w], "aux": [B, 3, h, w] or None}, fp32, not clamped.
        """
        height, width = pixel_values.shape[-2:]
        padded = pad_to_window(pixel_values, self.window)
        features = self.swin2sr(padded, return_dict=True).last_hidden_state
        sr, aux = reconstruct(self, features, padded)
        sr = sr[..., : height * self.scale, : width * self.scale]
        return {"sr": sr, "aux": aux if aux is None else aux[..., :height, :width]}

    @property
    def scale(self) -> int:
        """Return the upscaling factor of each side; 1 for denoising and JPEG restoration."""
        scale: int = self.config.upscale
        return scale

    @property
    def window(self) -> int:
        """Return the side of a window in input pixels; inputs are padded to a multiple of it."""
        window: int = self.config.window_size
        return window

    @property
    def reach(self) -> int:
        """Return the distance in input pixels beyond which no pixel changes an output pixel.

        A block reads its whole window, shifted or not, and each 3 x 3 convolution one pixel more;
        the pixel of a window with the longest distance counts. With windows of 8 and
        `pixelshuffledirect` the reach is 8 * (blocks / 2) + 7; other heads add 2 or 4 pixels.
        """
        fields = [(row, *self._receptive_field(row)) for row in range(self.window)]
        return max(max(row - first, last - row) for row, first, last in fields)

    def _receptive_field(self, row: int) -> tuple[int, int]:
        """Return (first, last) input row that an output row depends on, walking backwards."""
        margin = head_reach(self.upsampler, self.scale) + 1  # and conv_after_body
        first, last = row - margin, row + margin
        for stage in reversed(self.swin2sr.encoder.stages):
            first, last = first - 1, last + 1  # the convolution of the stage
            for block in reversed(stage.layers):
                side, shift = block.window_size, block.shift_size
                first = (first - shift) // side * side + shift
                last = (last - shift) // side * side + shift + side - 1
        return first - 1, last + 1  # the first convolution


def grad_checkpointing_blocks(module: Swin2SRForImageSuperResolution) -> list[nn.Module]:
    """Return the stages, whose activations may be recomputed: a step stores their input alone."""
    return list(module.swin2sr.encoder.stages)


def pad_to_window(pixel_values: torch.Tensor, window: int) -> torch.Tensor:
    """Pad images at the bottom and the right to a multiple of the window.

    The padding mirrors the image without repeating the edge, as in the authors' network; on a side
    that is too short for that it repeats the edge.

    Args:
        pixel_values: [B, C, H, W].
        window: side of a window in pixels.
    """
    height, width = pixel_values.shape[-2:]
    below, right = -height % window, -width % window
    if right:
        pixel_values = F.pad(
            pixel_values, (0, right, 0, 0), mode="reflect" if right < width else "replicate"
        )
    if below:
        pixel_values = F.pad(
            pixel_values, (0, 0, 0, below), mode="reflect" if below < height else "replicate"
        )
    return pixel_values
