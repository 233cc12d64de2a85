"""Images with masks of class ids: the index of a split and its samples."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from visionloop.datasets.augmentation.function import UserFunction
from visionloop.datasets.augmentation.samples import augment_mask
from visionloop.datasets.cache.in_memory import InMemoryCache
from visionloop.datasets.io.images import exchanged_sides, read_image
from visionloop.datasets.io.paths import PathIndex, Rows, hash_columns, hash_paths
from visionloop.datasets.segmentation.class_file import ClassFile
from visionloop.datasets.segmentation.masks import UnreadableMask, read_mask

COLUMNS = ("starts", "stops", "mask_starts", "mask_stops", "sizes", "mask_sizes")

Sample: TypeAlias = dict[str, torch.Tensor]
# (image, ids) -> (pixels, ids) for training, a sample for evaluation
Transform: TypeAlias = Callable[  # type: ignore[explicit-any]
    [torch.Tensor, torch.Tensor], Any
]


@dataclass(frozen=True, eq=False)
class SegmentationIndex(PathIndex):
    """The images of a split, sorted by path, and the mask of each.

    Attributes:
        mask_folder: of the masks of the split.
        class_file: meaning of the values in the masks.
        mask_paths, mask_starts, mask_stops: paths of the masks, see PathIndex.
        sizes, mask_sizes: of the files in bytes, int64 [N].
    """

    mask_folder: str
    class_file: ClassFile
    mask_paths: bytes
    mask_starts: NDArray[np.int64]
    mask_stops: NDArray[np.int64]
    sizes: NDArray[np.int64]
    mask_sizes: NDArray[np.int64]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in order of id."""
        return self.class_file.classes

    @property
    def colors(self) -> NDArray[np.uint8] | None:
        """Colors of the classes, uint8 [K, 3], or None where the data has none."""
        return self.class_file.colors

    def mask_path(self, i: int) -> str:
        """Return the path of mask i."""
        name = os.fsdecode(self.mask_paths[self.mask_starts[i] : self.mask_stops[i]])
        return os.path.join(self.mask_folder, name)

    def subset(self, rows: Rows) -> "SegmentationIndex":
        """Return the index of these images alone, in this order; the paths are shared."""
        return self.select(rows, COLUMNS)

    def fingerprint(self) -> str:
        """Return the SHA-256 of the classes, their values, relative paths and file sizes.

        Contents and the folder's own path are left out: a copy is the same data, an edit that keeps
        a file's size is not noticed.
        """
        digest = hashlib.sha256(self.class_file.digest().encode())
        lengths, mask_lengths = self.stops - self.starts, self.mask_stops - self.mask_starts
        hash_columns(digest, (lengths, mask_lengths, self.sizes, self.mask_sizes))
        hash_paths(digest, self.paths, self.starts, self.stops)
        hash_paths(digest, self.mask_paths, self.mask_starts, self.mask_stops)
        return digest.hexdigest()


class SegmentationDataset(Dataset[Sample]):
    """Samples of a SegmentationIndex.

    For training, a sample is {"pixel_values": uint8 [3, S, S], "ids": uint8 [S, S], 255 ignored};
    for evaluation, see SegmentationEvalPreset.
    """

    def __init__(
        self,
        index: SegmentationIndex,
        transform: Transform,
        with_ground_truth: bool = False,
        memory: int = 0,
        user_function: UserFunction | None = None,
    ) -> None:
        """Make a dataset.

        Args:
            index: the images and masks.
            transform: for training, transform(image, ids) returns (pixels, ids).
            with_ground_truth: for evaluation, the transform returns the sample.
            memory: bytes of the machine for decoded images and masks, used where all of them fit,
                see InMemoryCache.
            user_function: function of the user, applied before the transform of training.
        """
        self.index, self.transform, self.memory = index, transform, memory
        self.with_ground_truth, self.user_function = with_ground_truth, user_function
        self._cache = InMemoryCache(partial(read_pair, index), len(index), memory)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.index)

    def __getitem__(self, i: int) -> Sample:
        """Read sample i.

        Raises:
            UnreadableImage: an OSError, with the image or the mask; also where their sizes differ.
                Or AugmentError.
        """
        image, ids = self._cache(i)
        if self.user_function:
            image, ids = augment_mask(
                self.user_function, image, ids, len(self.classes), self.name(i)
            )
        if self.with_ground_truth:
            sample: Sample = self.transform(image, ids)
            return sample
        pixel_values, ids = self.transform(image, ids)
        return {"pixel_values": pixel_values, "ids": ids}

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in order of id."""
        return self.index.classes

    def name(self, i: int) -> str:
        """Return the path of image i, for messages."""
        return self.index.path(i)

    def cached_bytes(self) -> tuple[int, int]:
        """Return (bytes of images and masks cached in this process now, once all were read)."""
        return self._cache.cached_bytes()

    def fingerprint(self) -> str:
        """Return the fingerprint of the index."""
        return self.index.fingerprint()

    def subset(self, indices: NDArray[np.int64]) -> "SegmentationDataset":
        """Return a dataset of these images alone, in this order, with the same transform."""
        return SegmentationDataset(
            self.index.subset(indices),
            self.transform,
            self.with_ground_truth,
            self.memory,
            self.user_function,
        )


def read_pair(index: SegmentationIndex, i: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Read (upright image uint8 [3, H, W], class ids uint8 [H, W]) of row i.

    Raises:
        UnreadableImage: for the mask UnreadableMask.
    """
    image, ids = read_image(index.path(i)), read_mask(index.mask_path(i), index.class_file)
    why = mask_mismatch(image.shape[-2:], ids.shape, index.path(i))
    if why:
        raise UnreadableMask(index.mask_path(i), why)
    return image, ids


def mask_mismatch(
    image_hw: Sequence[int], mask_hw: Sequence[int], image_path: str | None = None
) -> str | None:
    """Return the problem when a mask does not have the size of its upright image, or None.

    Args:
        image_hw, mask_hw: (height, width).
        image_path: of the image, to tell whether EXIF turned it.
    """
    image_hw, mask_hw = tuple(image_hw), tuple(mask_hw)
    if image_hw == mask_hw:
        return None
    is_transposed = image_hw == mask_hw[::-1]
    hint = f": {exchanged_sides(image_path, 'the mask was')}" if is_transposed else ""
    return (
        f"is {mask_hw[0]} x {mask_hw[1]} (height x width), "
        f"its image {image_hw[0]} x {image_hw[1]}{hint}"
    )
