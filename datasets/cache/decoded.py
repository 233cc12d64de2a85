"""Decoded images to train on: from their files each time, kept in memory, or kept on the disk. The same pixels in each case."""

from functools import partial

import torch

from visionloop.datasets.cache.in_memory import Kept
from visionloop.datasets.cache.store import Contents, open_stores
from visionloop.datasets.io.images import UnreadableImage, read_image, read_size
from visionloop.datasets.io.reduced_jpeg import read_scaled_image, scaled_size


class DecodedImages:
    """The images of an index, decoded when asked for; kept in memory where `memory` bytes hold all of them, see Kept.

    index: with a length, `path(i)` and `subset(rows)`. least_side: of the shorter side of what is
    decoded, see read_scaled_image; None: always whole. Nobody may change an image.
    """

    def __init__(self, index, least_side=None, memory=0):
        self.index, self.least_side, self.memory = index, least_side, memory
        self._read = Kept(partial(read_row, index, least_side), len(index), memory)

    def __call__(self, i):
        """(image uint8 [3, H, W], upright,), or of a smaller copy (image, int64 [2]: (H, W) of the whole). Raises UnreadableImage."""
        return self._read(i)

    def kept_bytes(self):
        """(what this process keeps now, what it will once all were read)."""
        return self._read.kept_bytes()

    def subset(self, rows):
        return DecodedImages(self.index.subset(rows), self.least_side, self.memory)


def read_row(index, least_side, i):
    """What DecodedImages gives, from the file."""
    if least_side is None:
        return (read_image(index.path(i)),)
    image, whole_hw = read_scaled_image(index.path(i), least_side)
    return (image,) if tuple(image.shape[-2:]) == whole_hw else (image, torch.tensor(whole_hw))


class StoredImages:
    """The same of images that lie decoded on the disk, see image_store.py."""

    def __init__(self, index, store):
        self.index, self.store = index, store

    def __call__(self, i):
        """As DecodedImages; what could not be read when the store was made raises its error here."""
        if i not in self.store:
            read_image(self.index.path(i))  # raises, unless the file was mended in the meantime
            raise UnreadableImage(
                self.index.path(i), "could not be read when the cache was made; start again"
            )
        whole_hw = self.store.whole_hw[i]
        image = torch.from_numpy(self.store.read(i)).permute(2, 0, 1)
        return (
            (image,)
            if (whole_hw == self.store.sizes_hw[i]).all()
            else (image, torch.from_numpy(whole_hw))
        )

    def kept_bytes(self):
        """Nothing: the system drops what it holds of files when memory is short."""
        return 0, 0

    def subset(self, rows):
        return StoredImages(self.index.subset(rows), self.store.subset(rows))


def store_images(index, least_side=None):
    """The StoredImages of an index, after decoding what is missing or has changed. Raises CacheError.

    index: as of DecodedImages, with `folder` and `name(i)`. Images of another least_side lie in
    another folder.
    """
    (store,) = open_stores([training_contents(index, least_side)])
    return StoredImages(index, store)


def training_contents(index, least_side=None):
    """The Contents of the store of an index."""
    kind = "whole" if least_side is None else f"from-{least_side}px"
    make, measure = (
        partial(decode_for_store, least_side=least_side),
        partial(measure_for_store, least_side=least_side),
    )
    return Contents(
        kind, index.folder, [index.name(i) for i in range(len(index))], make, measure, read_size
    )


def decode_for_store(path, least_side):
    """uint8 [h, w, 3]; raises UnreadableImage."""
    image = read_image(path) if least_side is None else read_scaled_image(path, least_side)[0]
    return image.permute(1, 2, 0).numpy()


def measure_for_store(path, least_side):
    """(h, w) of decode_for_store, from the header; raises UnreadableImage."""
    return read_size(path) if least_side is None else scaled_size(path, least_side)
