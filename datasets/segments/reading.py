"""Reader of one image with its segments, from any of the forms of annotation."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import pycocotools.mask
import torch
from numpy.typing import NDArray

from visionloop.datasets.cache.in_memory import Tensors
from visionloop.datasets.io.images import UnreadableImage, exchanged_sides, read_image, read_size
from visionloop.datasets.segmentation.dataset import mask_mismatch
from visionloop.datasets.segmentation.masks import UnreadableMask
from visionloop.datasets.segments.class_masks import read_class_segments
from visionloop.datasets.segments.id_maps import SegmentMap, layers_of_map, match_ids, read_ids
from visionloop.datasets.segments.index import SegmentsIndex
from visionloop.datasets.segments.layers import encode_map, layers_of_outlines
from visionloop.datasets.segments.outlines import Rle

# tensors and numpy arrays, see `read_segments`
GroundTruth: TypeAlias = dict[str, Any]  # type: ignore[explicit-any]

NUM_TRAINING = 4  # tensors of a row that training uses; those of the ground truth follow


def read_segments(
    index: SegmentsIndex, i: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, GroundTruth]:
    """Read image i with its segments.

    Returns:
        (image uint8 [3, H, W], upright; layers uint8 [C, H, W], 255 where there is no segment;
        segments int64 [t, 3], (layer, number, label) of each target, never a crowd;
        ignored uint8 [H, W], 1 in crowds and in void;
        ground truth, all that evaluation compares with: {"labels": int64 [n], "crowd": bool [n]}
        and for "instance" {"rles": n compressed encodings, bytes, "areas": float64 [n]}, for
        "panoptic" {"segment_map": int32 tensor [H, W], 0 for void and k + 1 for segment k,
        "areas": int64 [n]}).

    Raises:
        UnreadableImage: for a mask UnreadableMask.
    """
    image, layers, segments, ignored, *truth = read_row(index, True, i)
    return image, layers, segments, ignored, unpack_ground_truth(index, truth)


def read_row(index: SegmentsIndex, with_ground_truth: bool, i: int) -> Tensors:
    """Read image i as tensors for a cache.

    Returns:
        (image, layers, segments, ignored), see `read_segments`; with the ground truth followed by
        what `unpack_ground_truth` takes.

    Raises:
        UnreadableImage: for a mask UnreadableMask.
    """
    image = read_image(index.path(i))
    if index.outlines is not None:
        row, truth = _read_outlines(index, i, image)
    else:
        segments = read_segment_map(index, i)
        _check_mask_size(index, i, segments.numbers.shape, image.shape)
        row, truth = _row_of_map(index, segments, with_ground_truth)
    return (image, *row, *(truth if with_ground_truth else ()))


def read_ground_truth(index: SegmentsIndex, i: int) -> tuple[GroundTruth, tuple[int, int]]:
    """Read the ground truth of image i without decoding the image, for predictions in files.

    Returns:
        (ground truth, see `read_segments`; height and width: of the PNG or in the annotations, or
        where these have none of the image's header).

    Raises:
        UnreadableImage: for a mask UnreadableMask.
    """
    if index.outlines is None:
        segments = read_segment_map(index, i)
        _, truth = _row_of_map(index, segments, True)
        height, width = segments.numbers.shape
    else:
        height, width = index.sizes_hw[i].tolist()
        if not height * width:
            height, width = read_size(index.path(i))
        rles, columns = _outline_truth(index, i, height, width)
        truth = _instance_truth(*columns, [rle["counts"] for rle in rles])
    return unpack_ground_truth(index, truth), (height, width)


def unpack_ground_truth(index: SegmentsIndex, tensors: Sequence[torch.Tensor]) -> GroundTruth:
    """Return the ground truth of the tensors that `read_row` made of it, see `read_segments`."""
    labels, crowd, areas, *content = tensors
    truth: GroundTruth = {"labels": labels.numpy(), "crowd": crowd.numpy(), "areas": areas.numpy()}
    if index.kind == "panoptic":
        return truth | {"segment_map": content[0].to(torch.int32)}
    encodings, borders = content[0].numpy().tobytes(), [0, *content[1].tolist()]
    return truth | {"rles": [encodings[start:stop] for start, stop in pairwise(borders)]}


def _read_outlines(index: SegmentsIndex, i: int, image: torch.Tensor) -> tuple[Tensors, Tensors]:
    """Return (layers, segments, ignored) and the ground truth of outlines."""
    height, width = image.shape[-2:]
    _check_size(index, i, (height, width))
    rles, columns = _outline_truth(index, i, height, width)
    labels, crowd, _ = columns
    layers, segments, crowds = layers_of_outlines(rles, labels, crowd, height, width)
    encodings = [rle["counts"] for rle in rles]
    return (layers, segments, crowds), _instance_truth(*columns, encodings)


def _outline_truth(
    index: SegmentsIndex, i: int, height: int, width: int
) -> tuple[list[Rle], tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.float64]]]:
    """Return the masks of the outlines of image i, and their labels, crowd flags and areas."""
    assert index.outlines is not None
    first, last = index.rows_of(i)
    rows = slice(first, last)
    rles = [index.outlines.rle(k, height, width) for k in range(first, last)]
    counted = np.array([pycocotools.mask.area(rle) for rle in rles], dtype=np.float64)
    areas = np.where(index.areas[rows] > 0, index.areas[rows], counted)
    return rles, (index.labels[rows].astype(np.int64), index.crowd[rows], areas)


def _row_of_map(
    index: SegmentsIndex, segments: SegmentMap, with_ground_truth: bool
) -> tuple[Tensors, Tensors]:
    """Return (layers, segments, ignored) and the ground truth of a map."""
    layers, targets = layers_of_map(segments)
    count = len(segments.labels)
    is_crowd = np.concatenate([[False], segments.crowd])[segments.numbers]
    ignored = (is_crowd | segments.is_void).astype(np.uint8)
    row = layers, targets, torch.from_numpy(ignored)
    if not with_ground_truth:
        return row, ()
    if index.kind == "instance":
        encodings = encode_map(segments.numbers, count)
        areas = segments.areas.astype(np.float64)
        return row, _instance_truth(segments.labels, segments.crowd, areas, encodings)
    # a cache holds the map in as few bytes as it needs
    dtype = np.uint8 if count < 256 else np.int16 if count < 2**15 else np.int32
    columns = segments.labels, segments.crowd, segments.areas, segments.numbers.astype(dtype)
    return row, tuple(map(torch.from_numpy, columns))


def _instance_truth(
    labels: NDArray[np.int64],
    crowd: NDArray[np.bool_],
    areas: NDArray[np.float64],
    encodings: list[bytes],
) -> Tensors:
    """Return the ground truth of an instance task as tensors."""
    stops = np.cumsum([len(counts) for counts in encodings], dtype=np.int64)
    joined = np.frombuffer(bytearray(b"".join(encodings)), dtype=np.uint8)
    # copies: a view would keep the columns of all images
    columns = [np.array(column) for column in (labels, crowd, areas)]
    return tuple(torch.from_numpy(column) for column in (*columns, joined, stops))


def read_segment_map(index: SegmentsIndex, i: int) -> SegmentMap:
    """Read the segments of image i from its PNGs.

    Raises:
        UnreadableMask: with the PNG.
    """
    assert index.masks is not None
    if index.class_file is not None:
        return read_class_segments(index, i)
    path, rows = index.masks.path(i), slice(*index.rows_of(i))
    stuff = slice(int(index.stuff_offsets[i]), int(index.stuff_offsets[i + 1]))
    ids = read_ids(path)
    try:
        return match_ids(
            ids,
            index.ids[rows],
            index.stuff_ids[stuff],
            index.labels[rows],
            index.crowd[rows],
            index.areas[rows],
        )
    except ValueError as error:
        raise UnreadableMask(path, str(error)) from None


def _check_mask_size(
    index: SegmentsIndex, i: int, mask_hw: tuple[int, ...], image_shape: torch.Size
) -> None:
    """Raise UnreadableMask unless a mask has the size of its upright image."""
    assert index.masks is not None
    if why := mask_mismatch(image_shape[-2:], mask_hw, index.path(i)):
        raise UnreadableMask(index.masks.path(i), why)


def _check_size(index: SegmentsIndex, i: int, size_hw: tuple[int, int]) -> None:
    """Raise UnreadableImage unless image i has the size in the annotations, if these give one."""
    if why := size_problem(index, i, size_hw):
        raise UnreadableImage(index.path(i), why)


def size_problem(index: SegmentsIndex, i: int, size_hw: tuple[int, int]) -> str | None:
    """Return the problem when image i does not have the size in the annotations, or None.

    Args:
        index: the annotations, which may give no size.
        i: row of the image.
        size_hw: of the upright image.
    """
    expected = tuple(index.sizes_hw[i].tolist())
    if 0 in expected or expected == size_hw:
        return None
    is_transposed = expected[::-1] == size_hw
    hint = f": {exchanged_sides(index.path(i), 'the outlines were')}" if is_transposed else ""
    return (
        f"is {size_hw[0]} x {size_hw[1]} (height x width), "
        f"the annotations say {expected[0]} x {expected[1]}{hint}"
    )
