"""Pairs of low and high-resolution images, whole or in crops, from files or a cache on disk."""

import random
from functools import partial
from typing import Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from visionloop.datasets.augmentation.function import UserFunction
from visionloop.datasets.augmentation.samples import augment_pair
from visionloop.datasets.cache.store import ImageStore, StoreSpec, open_stores
from visionloop.datasets.io.images import UnreadableImage, read_size
from visionloop.datasets.io.paths import Rows
from visionloop.datasets.super_resolution.downscale import (
    crop_to_multiple,
    decode,
    decode_downscaled,
    measure_downscaled,
    require_match,
    shrink,
    too_small,
)
from visionloop.datasets.super_resolution.layout import SuperResolutionIndex
from visionloop.datasets.super_resolution.transforms import (
    SuperResolutionEvalPreset,
    SuperResolutionTrainPreset,
)

CACHES = ("disk", "none")
# Low-resolution pixels around a crop from which it is computed; the kernel reaches 2. The crop then
# equals that of the whole image, bit for bit: at x2, x4 and x8 all sums are exact, and at x3 they
# are whole numbers over 81, so that none is where rounding changes direction.
MARGIN = 4

Sample: TypeAlias = dict[str, torch.Tensor]
# (low resolution, high resolution), uint8 [H, W, 3] each
Pair: TypeAlias = tuple[NDArray[np.uint8], NDArray[np.uint8]]


class Pairs(Protocol):
    """The pairs of an index; every implementation gives the same bytes."""

    index: SuperResolutionIndex

    def lr_size(self, i: int) -> tuple[int, int]:
        """Return (height, width) of low-resolution image i."""
        ...

    def whole(self, i: int) -> Pair:
        """Return pair i, the high-resolution image cropped to `scale` times the other."""
        ...

    def crop(self, i: int, top: int, left: int, side: int) -> Pair:
        """Return the same part of both images of pair i.

        Args:
            i: row of the pair.
            top, left: of the part, in low-resolution pixels.
            side: of the part, in low-resolution pixels.
        """
        ...

    def hr_crop(self, i: int, first: tuple[int, int], last: tuple[int, int]) -> NDArray[np.uint8]:
        """Return a part of high-resolution image i.

        Args:
            i: row of the pair.
            first, last: (row, column) in low-resolution pixels, the last excluded.
        """
        ...

    def subset(self, rows: Rows) -> "Pairs":
        """Return these pairs alone, in this order."""
        ...


class SuperResolutionDataset(Dataset[Sample]):
    """Samples of pairs: random crops for a transform with a `side`, else whole images.

    An epoch is one crop of each image. Its position is uniform over low-resolution pixels.
    """

    def __init__(
        self,
        pairs: Pairs,
        transform: SuperResolutionTrainPreset | SuperResolutionEvalPreset,
        user_function: UserFunction | None = None,
    ) -> None:
        """Make a dataset. user_function: applied to crops before the transform."""
        self.pairs, self.transform, self.user_function = pairs, transform, user_function

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.pairs.index)

    def __getitem__(self, i: int) -> Sample:
        """Read sample i.

        Raises:
            UnreadableImage: an OSError, with the image; also where a pair does not match or a crop
                does not fit. Or AugmentError.
        """
        name, side = self.pairs.index.name(i), self.transform.side
        if side is None:
            return self.transform(*self.pairs.whole(i), name=name)
        height, width = self.pairs.lr_size(i)
        if min(height, width) < side:
            raise UnreadableImage(
                self.name(i), too_small(height, width, side, self.pairs.index.scale)
            )
        top, left = random.randint(0, height - side), random.randint(0, width - side)
        if self.user_function:
            crops = augmented_crop(self.user_function, self.pairs, i, top, left, side)
        else:
            crops = self.pairs.crop(i, top, left, side)
        return self.transform(*crops, name=name)

    def name(self, i: int) -> str:
        """Return the path of high-resolution image i, for messages."""
        return self.pairs.index.path(i)

    def fingerprint(self) -> str:
        """Return the fingerprint of the index."""
        return self.pairs.index.fingerprint()

    def subset(self, indices: Rows) -> "SuperResolutionDataset":
        """Return a dataset of these images alone, in this order, with the same transform."""
        return SuperResolutionDataset(
            self.pairs.subset(indices), self.transform, self.user_function
        )


def open_pairs(index: SuperResolutionIndex, cache: str) -> "DecodedPairs | StoredPairs":
    """Return the pairs of an index.

    Args:
        index: the images.
        cache: "disk" caches decoded images, see cache/store.py; "none" decodes the files for each
            sample.

    Raises:
        CacheError: when the disk cannot take the images.
    """
    assert cache in CACHES, cache
    if cache == "none":
        return DecodedPairs(index)
    hr, *lr = open_stores(pair_store_specs(index))
    return StoredPairs(index, hr, lr[0] if lr else hr)


class DecodedPairs:
    """Pairs that are decoded for each sample; methods as in Pairs."""

    def __init__(self, index: SuperResolutionIndex) -> None:
        self.index = index

    def lr_size(self, i: int) -> tuple[int, int]:
        """Return (height, width) of low-resolution image i, from headers alone."""
        if self.index.lr_folder:
            return read_size(self.index.lr_path(i))
        return measure_downscaled(self.index.path(i), self.index.scale)

    def whole(self, i: int) -> Pair:
        """Return pair i."""
        scale, path = self.index.scale, self.index.path(i)
        hr = decode(path)
        lr = self._lr_from_file(i, hr)
        if lr is None:
            hr = crop_to_multiple(hr, scale, path)
            return shrink(hr, scale), hr
        return lr, hr[: scale * lr.shape[0], : scale * lr.shape[1]]

    def crop(self, i: int, top: int, left: int, side: int) -> Pair:
        """Return the same part of both images of pair i."""
        hr = decode(self.index.path(i))
        lr = self._lr_from_file(i, hr)
        if lr is not None:
            lr_crop = lr[top : top + side, left : left + side]
        else:
            lr_crop = self._downscaled_crop(hr, top, left, side)
        return lr_crop, hr_part(hr, self.index.scale, top, left, side)

    def hr_crop(self, i: int, first: tuple[int, int], last: tuple[int, int]) -> NDArray[np.uint8]:
        """Return a part of high-resolution image i."""
        return hr_between(decode(self.index.path(i)), self.index.scale, first, last)

    def subset(self, rows: Rows) -> "DecodedPairs":
        """Return these pairs alone, in this order."""
        return DecodedPairs(self.index.subset(rows))

    def _lr_from_file(self, i: int, hr: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
        """Read low-resolution image i, or return None without a file. Raises MismatchedPair."""
        if self.index.lr_folder is None:
            return None
        lr = decode(self.index.lr_path(i))
        require_match(self.index, i, lr.shape[:2], hr.shape[:2])
        return lr

    def _downscaled_crop(
        self, hr: NDArray[np.uint8], top: int, left: int, side: int
    ) -> NDArray[np.uint8]:
        """Compute a part of the low-resolution image from its surroundings alone."""
        scale = self.index.scale
        height, width = hr.shape[0] // scale, hr.shape[1] // scale
        first_row, first_column = max(0, top - MARGIN), max(0, left - MARGIN)
        last_row, last_column = min(height, top + side + MARGIN), min(width, left + side + MARGIN)
        around = hr[
            scale * first_row : scale * last_row, scale * first_column : scale * last_column
        ]
        top, left = top - first_row, left - first_column
        return shrink(around, scale)[top : top + side, left : left + side]


class StoredPairs:
    """Pairs from decoded images on disk; methods as in Pairs.

    An image that could not be read when the stores were made raises its error when it is used.
    """

    def __init__(self, index: SuperResolutionIndex, hr: ImageStore, lr: ImageStore) -> None:
        """Make the pairs of two stores, which are the same at scale 1."""
        self.index, self.hr, self.lr = index, hr, lr

    def lr_size(self, i: int) -> tuple[int, int]:
        """Return (height, width) of low-resolution image i."""
        self._require(i)
        height, width = self.lr.size_hw(i)
        if self.lr is self.hr:
            return height // self.index.scale, width // self.index.scale
        return height, width

    def whole(self, i: int) -> Pair:
        """Return pair i, as views of the files."""
        self._require(i)
        lr, scale = self.lr.image(i), self.index.scale
        return lr, self.hr.image(i)[: scale * lr.shape[0], : scale * lr.shape[1]]

    def crop(self, i: int, top: int, left: int, side: int) -> Pair:
        """Return the same part of both images of pair i, as views of the files."""
        self._require(i)
        hr = hr_part(self.hr.image(i), self.index.scale, top, left, side)
        return self.lr.image(i)[top : top + side, left : left + side], hr

    def hr_crop(self, i: int, first: tuple[int, int], last: tuple[int, int]) -> NDArray[np.uint8]:
        """Return a part of high-resolution image i, as a view of the file."""
        self._require(i)
        return hr_between(self.hr.image(i), self.index.scale, first, last)

    def subset(self, rows: Rows) -> "StoredPairs":
        """Return these pairs alone, in this order."""
        hr = self.hr.subset(rows)
        lr = hr if self.lr is self.hr else self.lr.subset(rows)
        return StoredPairs(self.index.subset(rows), hr, lr)

    def _require(self, i: int) -> None:
        """Raise the error of pair i, if it has one."""
        if i not in self.hr or i not in self.lr:
            DecodedPairs(self.index).whole(i)  # raises, unless the file was fixed in the meantime
            raise UnreadableImage(
                self.index.path(i), "could not be read when the cache was made; start again"
            )
        if self.index.lr_folder:
            require_match(self.index, i, self.lr.size_hw(i), self.hr.size_hw(i))


def augmented_crop(
    function: UserFunction, pairs: Pairs, i: int, top: int, left: int, side: int
) -> Pair:
    """Return `Pairs.crop` after the function of the user.

    Where there are no low-resolution images, the function gets the high-resolution crop with the
    surroundings from which its low-resolution pixels are computed, and these are computed after it.

    Raises:
        AugmentError: see `augment_pair`.
    """
    scale, path = pairs.index.scale, pairs.index.path(i)
    if pairs.index.lr_folder:
        lr, hr = (to_tensor(crop) for crop in pairs.crop(i, top, left, side))
        hr, augmented_lr = augment_pair(function, hr, lr, path)
        assert augmented_lr is not None
        return to_array(augmented_lr), to_array(hr)
    height, width = pairs.lr_size(i)
    margin = MARGIN if scale > 1 else 0
    first = max(0, top - margin), max(0, left - margin)
    last = min(height, top + side + margin), min(width, left + side + margin)
    around, _ = augment_pair(function, to_tensor(pairs.hr_crop(i, first, last)), None, path)
    top, left, pixels = top - first[0], left - first[1], to_array(around)
    lr_crop = shrink(pixels, scale)[top : top + side, left : left + side]
    return lr_crop, hr_part(pixels, scale, top, left, side)


def to_tensor(image: NDArray[np.uint8]) -> torch.Tensor:
    """Copy an image [H, W, 3] to a tensor [3, H, W] in the same memory layout."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def to_array(image: torch.Tensor) -> NDArray[np.uint8]:
    """Return an image [3, H, W] as an array [H, W, 3]."""
    array: NDArray[np.uint8] = image.permute(1, 2, 0).numpy()
    return array


def hr_part(hr: NDArray[np.uint8], scale: int, top: int, left: int, side: int) -> NDArray[np.uint8]:
    """Return the part of a high-resolution image for a low-resolution part, as a view."""
    return hr_between(hr, scale, (top, left), (top + side, left + side))


def hr_between(
    hr: NDArray[np.uint8], scale: int, first: tuple[int, int], last: tuple[int, int]
) -> NDArray[np.uint8]:
    """Return the part of a high-resolution image between low-resolution pixels, as a view."""
    return hr[scale * first[0] : scale * last[0], scale * first[1] : scale * last[1]]


def pair_store_specs(index: SuperResolutionIndex) -> list[StoreSpec]:
    """Return the stores of an index: high resolution, and low where the scale is not 1."""
    names = [index.name(i) for i in range(len(index))]
    hr = StoreSpec("HR", index.folder, names, decode, read_size)
    if index.scale == 1:
        return [hr]
    if index.lr_folder:
        lr_names = [index.lr_name(i) for i in range(len(index))]
        return [hr, StoreSpec(f"LR_x{index.scale}", index.lr_folder, lr_names, decode, read_size)]
    make = partial(decode_downscaled, scale=index.scale)
    measure = partial(measure_downscaled, scale=index.scale)
    return [hr, StoreSpec(f"LR_x{index.scale}-from-HR", index.folder, names, make, measure)]
