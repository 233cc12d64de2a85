"""Layers: few maps of numbers that hold masks which overlap.

One map cannot hold two objects of a pixel. In COCO, where two thirds of the objects share a pixel
with another, four layers hold every image, and two are enough for 71 % of them: far less memory and
augmentation than a map for each object.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from visionloop.datasets.segments.outlines import Rle
from visionloop.datasets.segments.run_lengths import encode_numbers, pixels_of_runs, read_runs

NO_SEGMENT = 255  # in a layer
NUM_NUMBERS = 255  # segments of a layer: 0 to 254


def layers_of_outlines(
    rles: Sequence[Rle],
    labels: NDArray[np.int64],
    crowd: NDArray[np.bool_],
    height: int,
    width: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the layers of masks.

    Greedy: the largest mask first, each into the first layer without a common pixel and with a
    number left. A mask without pixels is left out, and so is a crowd.

    Args:
        rles: the masks, n encodings.
        labels: int64 [n].
        crowd: bool [n].
        height, width: of the image.

    Returns:
        (layers uint8 [C, H, W] of numbers 0 to 254, 255 where there is no segment, C >= 1;
        segments int64 [t, 3], (layer, number, label) of each target in their order;
        crowds uint8 [H, W], 1 for pixels of a crowd).
    """
    # writing the pixels of a mask costs less than half of decoding it, far less in large images
    runs = read_runs([rle["counts"] for rle in rles])
    areas = np.array([each[1::2].sum() for each in runs], dtype=np.int64)
    layers: list[NDArray[np.uint8]] = []  # column-major, [W x H]
    used: list[int] = []
    placed: dict[int, tuple[int, int]] = {}
    targets = np.flatnonzero(~crowd & (areas > 0))
    for k in targets[np.argsort(-areas[targets], kind="stable")].tolist():
        pixels = pixels_of_runs(runs[k])
        layer = next(
            (
                c
                for c, number in enumerate(used)
                if number < NUM_NUMBERS and (layers[c][pixels] == NO_SEGMENT).all()
            ),
            len(layers),
        )
        if layer == len(layers):
            layers.append(np.full(width * height, NO_SEGMENT, dtype=np.uint8))
            used.append(0)
        layers[layer][pixels] = used[layer]
        placed[k] = layer, used[layer]
        used[layer] += 1
    crowds = np.zeros(width * height, dtype=np.uint8)
    for k in np.flatnonzero(crowd).tolist():
        crowds[pixels_of_runs(runs[k])] = 1
    rows = [(*placed[k], int(labels[k])) for k in targets.tolist()]
    layers = layers or [np.full(width * height, NO_SEGMENT, dtype=np.uint8)]
    stacked = np.stack([layer.reshape(width, height).T for layer in layers])
    return (
        torch.from_numpy(np.ascontiguousarray(stacked)),
        torch.tensor(rows, dtype=torch.int64).reshape(-1, 3),
        torch.from_numpy(np.ascontiguousarray(crowds.reshape(width, height).T)),
    )


def segment_masks(layers: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
    """Return the mask of each segment, bool [T, H, W].

    Args:
        layers: uint8 [C, H, W].
        segments: int64 [T, 2 or more], (layer, number, ..).
    """
    # an int64 number would turn the layers into int64 on a CPU: 8 times the memory, 5 times as long
    numbers = segments[:, 1].to(layers.dtype)
    return layers[segments[:, 0]] == numbers[:, None, None]


def layers_of_masks(masks: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (layers, segments) of masks, bool [n, H, W], as `layers_of_outlines` does.

    labels: int64 [n]. A mask without pixels is left out.
    """
    height, width = masks.shape[-2:]
    layers: list[torch.Tensor] = []
    used: list[int] = []
    placed: dict[int, tuple[int, int]] = {}
    areas = masks.flatten(1).sum(1)
    for k in areas.argsort(descending=True, stable=True).tolist():
        if not areas[k]:
            continue
        layer = next(
            (
                c
                for c, number in enumerate(used)
                if number < NUM_NUMBERS and (layers[c][masks[k]] == NO_SEGMENT).all()
            ),
            len(layers),
        )
        if layer == len(layers):
            layers.append(torch.full((height, width), NO_SEGMENT, dtype=torch.uint8))
            used.append(0)
        layers[layer][masks[k]] = used[layer]
        placed[k] = layer, used[layer]
        used[layer] += 1
    rows = [(*placed[k], int(labels[k])) for k in sorted(placed)]
    layers = layers or [torch.full((height, width), NO_SEGMENT, dtype=torch.uint8)]
    return torch.stack(layers), torch.tensor(rows, dtype=torch.int64).reshape(-1, 3)


def encode_map(numbers: NDArray[np.int32], count: int) -> list[bytes]:
    """Return the compressed run-length encodings of segments 1 to `count` of a map [H, W].

    Each of these numbers has a pixel.
    """
    encodings = encode_numbers(numbers)
    return [encodings[number]["counts"] for number in range(1, count + 1)]
