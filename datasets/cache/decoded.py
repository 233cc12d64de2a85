"""Decoded images for training: from their files, or cached in memory or on disk.

The pixels are the same in each case.
"""

from functools import partial
from typing import Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray

from visionloop.datasets.cache.in_memory import InMemoryCache, Tensors
from visionloop.datasets.cache.store import ImageStore, StoreSpec, open_stores
from visionloop.datasets.io.images import UnreadableImage, read_image, read_size
from visionloop.datasets.io.reduced_jpeg import read_reduced_image, reduced_size


class ImageFiles(Protocol):
    """The files of an index, see `datasets.io.paths.PathIndex`."""

    @property
    def folder(self) -> str:
        """Folder that the names are relative to."""
        ...

    def __len__(self) -> int: ...

    def name(self, i: int) -> str:
        """Path of image i relative to the folder."""
        ...

    def path(self, i: int) -> str:
        """Path of image i."""
        ...

    def subset(self, rows: NDArray[np.int64]) -> Self:
        """Index of the images at these rows."""
        ...


class DecodedImages:
    """The images of an index, decoded when they are read and cached where memory suffices."""

    def __init__(self, index: ImageFiles, min_side: int | None = None, memory: int = 0) -> None:
        """Make a reader.

        Args:
            index: the images.
            min_side: pixels of the shorter side that a reduced decoding keeps at least, see
                `read_reduced_image`; None: always decode in full.
            memory: bytes of the machine for a cache of all images, see InMemoryCache.
        """
        self.index, self.min_side, self.memory = index, min_side, memory
        self._cache = InMemoryCache(partial(decode_row, index, min_side), len(index), memory)

    def __call__(self, i: int) -> Tensors:
        """Return image i, which must not be changed in place.

        Returns:
            (uint8 [3, H, W], upright,), or of a reduced image (uint8 [3, h, w], int64 [2]: (H, W)
            of the full image).

        Raises:
            UnreadableImage: with the file.
        """
        return self._cache(i)

    def cached_bytes(self) -> tuple[int, int]:
        """Return (bytes cached in this process now, and once all images were read)."""
        return self._cache.cached_bytes()

    def subset(self, rows: NDArray[np.int64]) -> "DecodedImages":
        """Return a reader of the images at these rows."""
        return DecodedImages(self.index.subset(rows), self.min_side, self.memory)


def decode_row(index: ImageFiles, min_side: int | None, i: int) -> Tensors:
    """Decode image i from its file, see `DecodedImages.__call__`."""
    if min_side is None:
        return (read_image(index.path(i)),)
    image, full_hw = read_reduced_image(index.path(i), min_side)
    return (image,) if tuple(image.shape[-2:]) == full_hw else (image, torch.tensor(full_hw))


class DecodedImageCache:
    """The images of an index, read from decoded copies on disk; see store.py."""

    def __init__(self, index: ImageFiles, store: ImageStore) -> None:
        self.index, self.store = index, store

    def __call__(self, i: int) -> Tensors:
        """Return image i, see `DecodedImages.__call__`.

        Raises:
            UnreadableImage: also for a file that could not be read when the store was made.
        """
        if i not in self.store:
            read_image(self.index.path(i))  # raises, unless the file was fixed in the meantime
            raise UnreadableImage(
                self.index.path(i), "could not be read when the cache was made; start again"
            )
        full_hw = self.store.full_hw[i]
        image = torch.from_numpy(self.store.read(i)).permute(2, 0, 1)
        is_full = (full_hw == self.store.sizes_hw[i]).all()
        return (image,) if is_full else (image, torch.from_numpy(full_hw))

    def cached_bytes(self) -> tuple[int, int]:
        """Return zeros: the system drops its copy of the files when memory is short."""
        return 0, 0

    def subset(self, rows: NDArray[np.int64]) -> "DecodedImageCache":
        """Return a reader of the images at these rows."""
        return DecodedImageCache(self.index.subset(rows), self.store.subset(rows))


def open_image_cache(index: ImageFiles, min_side: int | None = None) -> DecodedImageCache:
    """Decode the images that are missing in the cache on disk or have changed, and open it.

    Args:
        index: the images.
        min_side: see DecodedImages; images of another `min_side` are in another folder.

    Raises:
        CacheError: when the disk cannot take the images.
    """
    (store,) = open_stores([image_store_spec(index, min_side)])
    return DecodedImageCache(index, store)


def image_store_spec(index: ImageFiles, min_side: int | None = None) -> StoreSpec:
    """Return the StoreSpec of the images of an index."""
    return StoreSpec(
        kind="full" if min_side is None else f"min-side-{min_side}px",
        folder=index.folder,
        names=[index.name(i) for i in range(len(index))],
        decode=partial(decode_for_store, min_side=min_side),
        measure=partial(measure_for_store, min_side=min_side),
        measure_full=read_size,
    )


def decode_for_store(path: str, min_side: int | None) -> NDArray[np.uint8]:
    """Decode a file, uint8 [h, w, 3]. Raises UnreadableImage."""
    image = read_image(path) if min_side is None else read_reduced_image(path, min_side)[0]
    return image.permute(1, 2, 0).numpy()


def measure_for_store(path: str, min_side: int | None) -> tuple[int, int]:
    """Return (h, w) of `decode_for_store` from the header. Raises UnreadableImage."""
    return read_size(path) if min_side is None else reduced_size(path, min_side)
