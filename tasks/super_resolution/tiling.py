"""Images of any size through the network: whole where that fits, else in tiles whose borders are cut off.

A network of windows gives a tile the pixels of the whole image, bit for bit or to the last
rounding, when (a) the image is padded once, before it is cut, (b) every tile starts and ends at a
border of windows, (c) each side sees a halo of at least the network's reach, and (d) halos are cut
off, never averaged. With a smaller halo the result is an approximation, and `Tiling.sentence` says
so. Which case it is depends on the model and the image alone, not on the machine: the same
command gives the same image anywhere.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch

from visionloop.tasks.super_resolution.network import pad_to_window

# Self-ensemble: the mean answer to the eight flips and turns of an image.
#
# Source: arXiv 1707.02921 (EDSR), section 3.4, "geometric self-ensemble".

TURNS = 8  # the symmetries of a square


def turn(pixels, k):
    """pixels [..., H, W] in one of eight ways: 1 flips columns, 2 flips rows, then 4 swaps rows and columns; 0 leaves all as it is."""
    if k & 1:
        pixels = pixels.flip(-1)
    if k & 2:
        pixels = pixels.flip(-2)
    return pixels.mT if k & 4 else pixels


def turn_back(pixels, k):
    """What `turn` undoes: turn_back(turn(x, k), k) is x."""
    if k & 4:
        pixels = pixels.mT
    if k & 2:
        pixels = pixels.flip(-2)
    return pixels.flip(-1) if k & 1 else pixels


def mean_over_turns(module, pixels, count=TURNS):
    """The image that `module` answers, float [B, 3, s*H, s*W], as the mean over the first `count` turns; 1: the plain answer.

    pixels: float [B, 3, H, W]. A mean of floats, before anything is clamped or rounded. Costs
    `count` forwards; two images are held.
    """
    total = module(pixels)["sr"]
    for k in range(1, count):
        total = total + turn_back(module(turn(pixels, k).contiguous())["sr"], k)
    return total / count


# Sides of what is seen at once, in input pixels. Measured on a CPU in fp32 without gradients, a
# pixel costs 12 to 15 KiB with 180 channels and 6 to 9 with 60: 1.7 GiB for 384 x 384 of the
# largest x4. Up to 512 x 512 an image stays whole, as papers score Set5 to Urban100.
WHOLE, SEEN = 512, 384
# from x8 on the head's 64 channels at the size of the result cost the most: 37 KiB an input pixel
# at x8
LARGE_SCALE, WHOLE_AT_LARGE_SCALE, SEEN_AT_LARGE_SCALE = 8, 256, 256
HALO = 64  # what a model with a longer reach is given; one with a shorter is given its reach
SMALLEST_TILE = 128  # of our choosing, whatever the halo


class Span(NamedTuple):
    """Rows or columns of one tile, in input pixels: seen from start to stop, kept from keep_start to keep_stop."""

    start: int
    stop: int
    keep_start: int
    keep_stop: int


@dataclass(frozen=True)
class Tiling:
    """How one image goes through the network.

    tile: side of what is kept of a tile at most, 0: whole; halo: what a tile sees around that;
    reach: the model's; all in input pixels. exact: whether the result is the whole image's.
    """

    tile: int
    halo: int
    reach: int
    exact: bool

    @property
    def tiled(self):
        return self.tile > 0

    def sentence(self):
        """Which case it is, for people."""
        if not self.tiled:
            return "whole: the network sees the image at once"
        tiles, far = (
            f"tiles of {self.tile} px with {self.halo} px around them",
            f"the network sees {self.reach} px far",
        )
        if self.exact:
            return f"{tiles}: the same as the whole image, since {far}"
        return f"{tiles}: an approximation of the whole image, since {far}; --halo {self.reach} would be exact"


def is_exact(module, halo):
    """Whether tiles with such a halo, which is rounded up to windows, give the pixels of the whole image."""
    return round_up(halo, module.window) >= module.reach


def choose_tiling(module, height, width, *, tile=None, halo=None):
    """The Tiling of an image of height x width input pixels.

    tile, halo: rounded up to windows. tile 0: whole, however large; None: whole up to 512 x 512
    pixels, else as large as 384 x 384 seen pixels allow. halo None: the model's reach, or 64 where
    that is longer.
    """
    window, reach = module.window, module.reach
    at_large_scale = module.scale >= LARGE_SCALE
    whole, seen = (WHOLE_AT_LARGE_SCALE, SEEN_AT_LARGE_SCALE) if at_large_scale else (WHOLE, SEEN)
    height, width = round_up(height, window), round_up(width, window)
    halo = round_up(min(reach, HALO) if halo is None else halo, window)
    if tile is None:
        tile = (
            0
            if height * width <= whole**2
            else max(seen - 2 * halo, SMALLEST_TILE) // window * window
        )
    tile = round_up(tile, window)
    if max(height, width) <= tile + 2 * halo:
        tile = 0
    return Tiling(tile, halo if tile else 0, reach, exact=not tile or is_exact(module, halo))


def plan_tiles(height, width, *, tile, halo, window):
    """[(rows, columns)], two Spans a tile, all seen sides equal; what is kept covers the image once.

    height, width: of the padded image; all numbers are multiples of `window`. A tile at the
    image's border keeps what would be its halo there. tile: an upper limit, tiles are made as
    equal as windows allow.
    """
    assert not any(number % window for number in (height, width, tile, halo)), (
        "padded once, then cut between windows"
    )
    return [
        (rows, columns)
        for rows in spans(height, tile, halo, window)
        for columns in spans(width, tile, halo, window)
    ]


def spans(length, tile, halo, window):
    """[Span] along one side. tile 0: the whole side."""
    if tile == 0 or length <= tile + 2 * halo:
        return [Span(0, length, 0, length)]
    inner = length - 2 * halo
    count = -(-inner // tile)
    tile = round_up(-(-inner // count), window)
    size = tile + 2 * halo
    starts = [min(i * tile, length - size) for i in range(count)]
    cuts = [0, *(start + halo for start in starts[1:]), length]
    return [
        Span(start, start + size, *kept) for start, kept in zip(starts, pairwise(cuts), strict=True)
    ]


@torch.no_grad()
def upscale(module, pixels, *, tile=None, halo=None, batch=None, ensemble=1, as_bytes=False):
    """What the module makes of one image: float [3, s*h, s*w] where the pixels lie, not clamped.

    pixels: uint8 [3, h, w], or float in 0..1; tile, halo: of `choose_tiling`; batch: tiles at a
    time, None: as many as 384 x 384 pixels hold; ensemble: turns averaged, each tile's by itself.

    as_bytes: uint8 in host memory, clamped and rounded tile by tile: of floats there is never more
    than one batch of tiles.
    """
    height, width = pixels.shape[-2:]
    scale, window = module.scale, module.window
    tiling = choose_tiling(module, height, width, tile=tile, halo=halo)
    dtype = pixels.dtype if pixels.is_floating_point() else torch.float32
    padded = pad_to_window(pixels[None].to(dtype), window)[0].to(pixels.dtype)
    plan = plan_tiles(*padded.shape[-2:], tile=tiling.tile, halo=tiling.halo, window=window)
    rows, columns = plan[0]
    at_once = batch or max(
        1, SEEN**2 // ((rows.stop - rows.start) * (columns.stop - columns.start))
    )
    kind = {"dtype": torch.uint8} if as_bytes else {"dtype": dtype, "device": pixels.device}
    result = torch.empty(3, scale * height, scale * width, **kind)
    for first in range(0, len(plan), at_once):
        part = plan[first : first + at_once]
        seen = torch.stack(
            [
                padded[:, rows.start : rows.stop, columns.start : columns.stop]
                for rows, columns in part
            ]
        )
        answers = mean_over_turns(
            module, seen if seen.is_floating_point() else seen.float() / 255, ensemble
        )
        for (rows, columns), answer in zip(part, answers, strict=True):
            top, bottom, from_row, to_row = _kept(rows, height, scale)
            left, right, from_column, to_column = _kept(columns, width, scale)
            kept = answer[:, from_row:to_row, from_column:to_column]
            result[:, top:bottom, left:right] = to_bytes(kept) if as_bytes else kept
    return result


def _kept(span, length, scale):
    """(start, stop in the result, start, stop in the tile's answer) of what is kept, without what was padded."""
    start, stop = span.keep_start, min(span.keep_stop, length)
    return scale * start, scale * stop, scale * (start - span.start), scale * (stop - span.start)


def to_bytes(images):
    """float, 0..1 and what exceeds it -> uint8, clamped and rounded."""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


def round_up(length, window):
    """The next multiple of the window."""
    return -(-length // window) * window
