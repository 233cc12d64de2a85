"""Images with boxes as samples for a detector."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from visionloop.datasets.augmentation.function import UserFunction
from visionloop.datasets.augmentation.samples import augment_boxes
from visionloop.datasets.cache.decoded import DecodedImageCache, DecodedImages
from visionloop.datasets.detection.index import DetectionIndex
from visionloop.datasets.io.images import UnreadableImage, exchanged_sides

# tensors, and "ground_truth": a dict of numpy arrays
Sample: TypeAlias = dict[str, Any]  # type: ignore[explicit-any]
# called with an image, its boxes, and only for reduced images with the size of the full one
Transform: TypeAlias = Callable[  # type: ignore[explicit-any]
    ..., tuple[torch.Tensor, torch.Tensor, torch.Tensor]
]


class DetectionDataset(Dataset[Sample]):
    """Samples of a DetectionIndex.

    A sample is {"pixel_values": uint8 [3, S, S], "boxes": float32 [G, 4] cxcywh in 0..1 of the
    pixel values, "class_labels": int64 [G], "size": int64 [2], height and width of the upright
    image}. Crowd boxes are left out, boxes are clipped to the image and those of which nothing is
    left are dropped.
    """

    def __init__(
        self,
        index: DetectionIndex,
        transform: Transform,
        with_ground_truth: bool = False,
        images: DecodedImages | DecodedImageCache | None = None,
        user_function: UserFunction | None = None,
    ) -> None:
        """Make a dataset.

        Args:
            index: the images and boxes.
            transform: transform(image, boxes_xyxy) returns (pixels, boxes_cxcywh, keep); for a
                reduced image it also gets the size of the full one, in whose pixels the boxes are.
            with_ground_truth: add "ground_truth", all that evaluation compares with, as numpy
                arrays: {"boxes": float64 [T, 4] xywh in pixels as in the file, "labels": int64 [T],
                "crowd": bool [T], "areas": float64 [T]}.
            images: reader of the images; None: from their files, in full.
            user_function: function of the user, applied before the transform to images in full.
        """
        self.index, self.transform, self.user_function = index, transform, user_function
        self.with_ground_truth = with_ground_truth
        self.images = images or DecodedImages(index)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.index)

    def __getitem__(self, i: int) -> Sample:
        """Read sample i.

        Raises:
            UnreadableImage: an OSError, with the file; also where its size is not that of the
                annotations. Or AugmentError.
        """
        image, *full_hw = self.images(i)
        height, width = full_hw[0].tolist() if full_hw else image.shape[-2:]
        why = size_mismatch(self.index, i, (height, width))
        if why:
            raise UnreadableImage(self.index.path(i), why)
        boxes, labels, crowd, areas = self.index.boxes_of(i)
        boxes_xyxy, inside = clip_boxes(boxes, height, width)
        usable = inside & ~crowd
        targets = torch.from_numpy(boxes_xyxy[usable])
        class_labels = torch.from_numpy(labels[usable].astype(np.int64))
        if self.user_function:
            image, targets, class_labels = augment_boxes(
                self.user_function, image, targets, class_labels, len(self.classes), self.name(i)
            )
        pixel_values, boxes_cxcywh, keep = self.transform(image, targets, *full_hw)
        sample: Sample = {
            "pixel_values": pixel_values,
            "boxes": boxes_cxcywh,
            "class_labels": class_labels[keep],
            "size": torch.tensor([height, width]),
        }
        if self.with_ground_truth:
            sample["ground_truth"] = {
                "boxes": boxes,
                "labels": labels.astype(np.int64),
                "crowd": crowd,
                "areas": areas,
            }
        return sample

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in order of label."""
        return self.index.classes

    def name(self, i: int) -> str:
        """Return the path of image i, for messages."""
        return self.index.path(i)

    def cached_bytes(self) -> tuple[int, int]:
        """Return (bytes of images cached in this process now, and once all were read)."""
        return self.images.cached_bytes()

    def fingerprint(self) -> str:
        """Return the fingerprint of the index."""
        return self.index.fingerprint()

    def subset(self, indices: NDArray[np.int64]) -> "DetectionDataset":
        """Return a dataset of these images alone, in this order, with the same transform."""
        return DetectionDataset(
            self.index.subset(indices),
            self.transform,
            self.with_ground_truth,
            self.images.subset(indices),
            self.user_function,
        )


def clip_boxes(
    boxes_xywh: NDArray[np.float64], height: int, width: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Clip boxes to the image.

    Args:
        boxes_xywh: float64 [G, 4] in pixels.
        height, width: of the image.

    Returns:
        (float64 [G, 4] xyxy, bool [G]: something of the box is left).
    """
    corners = np.concatenate([boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]], axis=1)
    corners = corners.clip(0, [width, height, width, height])
    return corners, np.all(corners[:, 2:] > corners[:, :2], axis=1)


def size_mismatch(index: DetectionIndex, i: int, size_hw: Sequence[int]) -> str | None:
    """Return the problem when image i does not have the size in the annotations, or None.

    Args:
        index: the annotations, which may give no size.
        i: row of the image.
        size_hw: of the upright image.
    """
    expected = index.sizes_hw[i]
    if not expected.all() or tuple(expected) == tuple(size_hw):
        return None
    is_transposed = tuple(expected[::-1]) == tuple(size_hw)
    hint = f": {exchanged_sides(index.path(i), 'the boxes were')}" if is_transposed else ""
    return (
        f"is {size_hw[0]} x {size_hw[1]} (height x width), "
        f"the annotations say {expected[0]} x {expected[1]}{hint}"
    )
