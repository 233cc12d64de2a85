"""The library's Swin2SR with a forward of our own: images of any size, the auxiliary image, and the authors' heads."""

import transformers
from torch.nn import functional as F

from visionloop.tasks.super_resolution.heads import head_reach, reconstruct
from visionloop.tasks.super_resolution.weight_conversion import is_plain


class Swin2SRForImageSuperResolution(transformers.Swin2SRForImageSuperResolution):
    """The library's network; its own forward, which fails on sizes that windows do not divide, never runs.

    The name is the library's, because `save_pretrained` writes the name of the class into
    config.json. official_heads: whose way is followed where the library's head is not the authors'
    (see heads.py); False, what plain transformers computes, only for weights that were corrected
    for it, as config.json then says.
    """

    def __init__(self, config):
        super().__init__(config)
        self.official_heads = not is_plain(config)

    def forward(self, pixel_values):
        """pixel_values: [B, 3, h, w] in 0..1 -> {"sr": [B, 3, s*h, s*w], "aux": [B, 3, h, w] or None}, fp32, not clamped."""
        height, width = pixel_values.shape[-2:]
        padded = pad_to_window(pixel_values, self.window)
        features = self.swin2sr(padded, return_dict=True).last_hidden_state
        sr, aux = reconstruct(self, features, padded)
        sr = sr[..., : height * self.scale, : width * self.scale]
        return {"sr": sr, "aux": aux if aux is None else aux[..., :height, :width]}

    @property
    def scale(self):
        """How many times larger a side becomes; 1 for noise and JPEG."""
        return self.config.upscale

    @property
    def window(self):
        """Side of a window in pixels of the input: every size is padded to a multiple of it."""
        return self.config.window_size

    @property
    def reach(self):
        """Pixels of the input, to each side, beyond which nothing changes a pixel of the image.

        One block sees its whole window, shifted or not, and each 3x3 convolution one pixel more;
        the pixel in a window whose way is longest counts. With windows of 8 and
        `pixelshuffledirect` that is 8 * (blocks / 2) + 7; other heads see 2 or 4 pixels more.
        """
        seen = [(place, *self._seen_by(place)) for place in range(self.window)]
        return max(max(place - low, high - place) for place, low, high in seen)

    def _seen_by(self, place):
        """(first, last) row of the input that an image's row `place` depends on, the network walked backwards."""
        margin = head_reach(self.upsampler, self.scale) + 1  # and conv_after_body
        low, high = place - margin, place + margin
        for stage in reversed(self.swin2sr.encoder.stages):
            low, high = low - 1, high + 1  # the stage's convolution
            for block in reversed(stage.layers):
                side, shift = block.window_size, block.shift_size
                low, high = (
                    (low - shift) // side * side + shift,
                    (high - shift) // side * side + shift + side - 1,
                )
        return low - 1, high + 1  # the first convolution


def recomputed_blocks(module):
    """The stages: what recomputing activations wraps. All that a step keeps of them is their input."""
    return list(module.swin2sr.encoder.stages)


def pad_to_window(pixel_values, window):
    """pixel_values: [B, C, H, W] with rows below and columns to the right, as few as make both sides multiples of `window`.

    They mirror the image, the edge itself not repeated, as the authors' network does; on a side
    too short for that they repeat the edge.
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
