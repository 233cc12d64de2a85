"""Inference on images of any size: whole where that fits, else in tiles whose halos are cut off.

A network of windows gives a tile the pixels of the whole image, bit for bit or to the last
rounding, when (a) the image is padded once, before it is cut, (b) every tile starts and ends at a
border between windows, (c) each side reads a halo of at least the network's reach, and (d) halos
are cut off, never averaged. With a smaller halo the output is an approximation, and
`Tiling.describe` reports it. The case depends on the model and the image alone, not on the
machine: the same command gives the same image anywhere.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch

from visionloop.tasks.super_resolution.network import (
    Swin2SRForImageSuperResolution,
    pad_to_window,
)

# Sides in input pixels of a whole image and of a tile with its halo. Measured on a CPU in fp32
# without gradients, a pixel costs 12 to 15 KiB with 180 channels and 6 to 9 with 60: 1.7 GiB for
# 384 x 384 of the largest x4. Up to 512 x 512 an image stays whole, as papers score Set5 to
# Urban100.
WHOLE, TILE_WITH_HALO = 512, 384
# From x8 on the head's 64 channels at the output size cost the most: 37 KiB an input pixel at x8.
LARGE_SCALE, WHOLE_AT_LARGE_SCALE, TILE_WITH_HALO_AT_LARGE_SCALE = 8, 256, 256
MAX_HALO = 64  # default of a model with a longer reach; of others it is their reach
MIN_TILE = 128  # our choice, whatever the halo
NUM_D4_TRANSFORMS = 8  # the symmetries of a square


class Span(NamedTuple):
    """Rows or columns of one tile in input pixels.

    The network reads from start to stop; the output keeps keep_start to keep_stop.
    """

    start: int
    stop: int
    keep_start: int
    keep_stop: int


@dataclass(frozen=True)
class Tiling:
    """The tiling of one image; all lengths in input pixels.

    Attributes:
        tile: largest side of the output part of a tile; 0 for a whole image.
        halo: pixels around it that the network reads too.
        reach: the reach of the model.
        exact: whether the output equals that of the whole image.
    """

    tile: int
    halo: int
    reach: int
    exact: bool

    @property
    def tiled(self) -> bool:
        """Return True when the image is cut into tiles."""
        return self.tile > 0

    def describe(self) -> str:
        """Return a sentence for people."""
        if not self.tiled:
            return "whole: the network reads the image at once"
        tiles = f"tiles of {self.tile} px with a halo of {self.halo} px"
        reach = f"the reach of the network is {self.reach} px"
        if self.exact:
            return f"{tiles}: the same as the whole image, since {reach}"
        return (
            f"{tiles}: an approximation of the whole image, since {reach};"
            f" --halo {self.reach} would be exact"
        )


@torch.no_grad()
def upscale(
    module: Swin2SRForImageSuperResolution,
    pixels: torch.Tensor,
    *,
    tile: int | None = None,
    halo: int | None = None,
    batch_size: int | None = None,
    ensemble: int = 1,
    as_bytes: bool = False,
) -> torch.Tensor:
    """Upscale one image.

    Args:
        pixels: uint8 [3, h, w], or float in 0..1.
        tile, halo: see `choose_tiling`.
        batch_size: tiles in one forward; None takes as many as 384 x 384 pixels hold.
        ensemble: number of D4 transforms that are averaged, for each tile by itself.
        as_bytes: return uint8 in host memory, clamped and rounded tile by tile: of floats there is
            never more than one batch of tiles.

    Returns:
        float [3, s*h, s*w] on the device of `pixels`, not clamped; or uint8 with `as_bytes`.
    """
    height, width = pixels.shape[-2:]
    scale, window = module.scale, module.window
    tiling = choose_tiling(module, height, width, tile=tile, halo=halo)
    dtype = pixels.dtype if pixels.is_floating_point() else torch.float32
    padded = pad_to_window(pixels[None].to(dtype), window)[0].to(pixels.dtype)
    padded_height, padded_width = padded.shape[-2:]
    plan = plan_tiles(
        padded_height, padded_width, tile=tiling.tile, halo=tiling.halo, window=window
    )
    rows, columns = plan[0]
    area = (rows.stop - rows.start) * (columns.stop - columns.start)
    batch_size = batch_size or max(1, TILE_WITH_HALO**2 // area)
    output = torch.empty(
        (3, scale * height, scale * width),
        dtype=torch.uint8 if as_bytes else dtype,
        device=None if as_bytes else pixels.device,
    )
    for first in range(0, len(plan), batch_size):
        spans_of_batch = plan[first : first + batch_size]
        tiles = torch.stack(
            [
                padded[:, rows.start : rows.stop, columns.start : columns.stop]
                for rows, columns in spans_of_batch
            ]
        )
        images = tiles if tiles.is_floating_point() else tiles.float() / 255
        for (rows, columns), result in zip(
            spans_of_batch, self_ensemble(module, images, ensemble), strict=True
        ):
            into_rows, from_rows = _kept_slices(rows, height, scale)
            into_columns, from_columns = _kept_slices(columns, width, scale)
            part = result[:, from_rows, from_columns]
            output[:, into_rows, into_columns] = to_bytes(part) if as_bytes else part
    return output


def choose_tiling(
    module: Swin2SRForImageSuperResolution,
    height: int,
    width: int,
    *,
    tile: int | None = None,
    halo: int | None = None,
) -> Tiling:
    """Choose the tiling of an image of height x width input pixels.

    Args:
        module: the network, for its window, reach and scale.
        tile: side of a tile, rounded up to windows. 0 keeps any image whole; None keeps it whole
            up to 512 x 512 pixels and else makes tiles of 384 x 384 with their halo.
        halo: pixels around a tile, rounded up to windows; None takes the model's reach, at most
            64.
    """
    window, reach = module.window, module.reach
    whole, with_halo = (
        (WHOLE_AT_LARGE_SCALE, TILE_WITH_HALO_AT_LARGE_SCALE)
        if module.scale >= LARGE_SCALE
        else (WHOLE, TILE_WITH_HALO)
    )
    height, width = round_up(height, window), round_up(width, window)
    halo = round_up(min(reach, MAX_HALO) if halo is None else halo, window)
    if tile is None:
        fits = height * width <= whole**2
        tile = 0 if fits else max(with_halo - 2 * halo, MIN_TILE) // window * window
    tile = round_up(tile, window)
    if max(height, width) <= tile + 2 * halo:
        tile = 0
    return Tiling(tile, halo if tile else 0, reach, exact=not tile or is_exact(module, halo))


def is_exact(module: Swin2SRForImageSuperResolution, halo: int) -> bool:
    """Return True when tiles with this halo, rounded up to windows, equal the whole image."""
    return round_up(halo, module.window) >= module.reach


def plan_tiles(
    height: int, width: int, *, tile: int, halo: int, window: int
) -> list[tuple[Span, Span]]:
    """Cut an image into tiles of equal size whose kept parts cover it once.

    A tile at the border of the image keeps what would be its halo there.

    Args:
        height, width: sides of the padded image; all numbers are multiples of `window`.
        tile: largest side of a tile; they are made as equal as windows allow.
        halo: pixels around a tile.
        window: side of a window.

    Returns:
        (rows, columns) of each tile.
    """
    assert not any(number % window for number in (height, width, tile, halo)), (
        "padded once, then cut between windows"
    )
    return [
        (rows, columns)
        for rows in spans(height, tile, halo, window)
        for columns in spans(width, tile, halo, window)
    ]


def spans(length: int, tile: int, halo: int, window: int) -> list[Span]:
    """Cut one side into spans; tile 0 gives the whole side."""
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


def _kept_slices(
    span: Span, length: int, scale: int
) -> "tuple[slice[int, int, int], slice[int, int, int]]":
    """Return the kept part of a tile without padding, as slices of the output and of its result."""
    start, stop = span.keep_start, min(span.keep_stop, length)
    return (
        slice(scale * start, scale * stop),
        slice(scale * (start - span.start), scale * (stop - span.start)),
    )


def self_ensemble(
    module: Swin2SRForImageSuperResolution,
    pixel_values: torch.Tensor,
    count: int = NUM_D4_TRANSFORMS,
) -> torch.Tensor:
    """Average the outputs for the first `count` D4 transforms of the input; 1: the plain output.

    This is the geometric self-ensemble of EDSR (arXiv:1707.02921, section 3.4). It averages
    floats, before anything is clamped or rounded, and costs `count` forwards and the memory of two
    outputs.

    Args:
        pixel_values: float [B, 3, H, W].

    Returns:
        float [B, 3, s*H, s*W].
    """
    total: torch.Tensor = module(pixel_values)["sr"]
    for k in range(1, count):
        output = module(d4_transform(pixel_values, k).contiguous())["sr"]
        total = total + d4_inverse(output, k)
    return total / count


def d4_transform(images: torch.Tensor, k: int) -> torch.Tensor:
    """Apply one of the eight D4 transforms (flips and rotations of a square) to [..., H, W].

    Bit 1 of k flips columns, bit 2 flips rows, then bit 4 swaps rows and columns.
    """
    if k & 1:
        images = images.flip(-1)
    if k & 2:
        images = images.flip(-2)
    return images.mT if k & 4 else images


def d4_inverse(images: torch.Tensor, k: int) -> torch.Tensor:
    """Undo a D4 transform: d4_inverse(d4_transform(x, k), k) is x."""
    if k & 4:
        images = images.mT
    if k & 2:
        images = images.flip(-2)
    return images.flip(-1) if k & 1 else images


def to_bytes(images: torch.Tensor) -> torch.Tensor:
    """Clamp floats to 0..1 and round them to uint8."""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


def round_up(length: int, window: int) -> int:
    """Return the next multiple of the window."""
    return -(-length // window) * window
