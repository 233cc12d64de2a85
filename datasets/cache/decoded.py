"""Decoded pictures to train on: from their files each time, kept in memory, or kept on the disk. The same pixels in each case."""

from functools import partial

import torch

from visionloop.datasets.cache.in_memory import Kept
from visionloop.datasets.cache.store import Contents, open_stores
from visionloop.datasets.io.images import UnreadablePicture, read_picture, read_size
from visionloop.datasets.io.reduced_jpeg import read_scaled_picture, scaled_size


class DecodedPictures:
    """The pictures of an index, decoded when asked for; kept in memory where `memory` bytes hold all of them, see Kept.

    index: with a length, `path(i)` and `subset(rows)`. least_side: of the shorter side of what is
    decoded, see read_scaled_picture; None: always whole. Nobody may change a picture.
    """

    def __init__(self, index, least_side=None, memory=0):
        self.index, self.least_side, self.memory = index, least_side, memory
        self._read = Kept(partial(read_row, index, least_side), len(index), memory)

    def __call__(self, i):
        """(picture uint8 [3, H, W], upright,), or of a smaller copy (picture, int64 [2]: (H, W) of the whole). Raises UnreadablePicture."""
        return self._read(i)

    def kept_bytes(self):
        """(what this process keeps now, what it will once all were read)."""
        return self._read.kept_bytes()

    def subset(self, rows):
        return DecodedPictures(self.index.subset(rows), self.least_side, self.memory)


def read_row(index, least_side, i):
    """What DecodedPictures gives, from the file."""
    if least_side is None:
        return (read_picture(index.path(i)),)
    picture, whole_hw = read_scaled_picture(index.path(i), least_side)
    return (
        (picture,) if tuple(picture.shape[-2:]) == whole_hw else (picture, torch.tensor(whole_hw))
    )


class StoredPictures:
    """The same of pictures that lie decoded on the disk, see picture_store.py."""

    def __init__(self, index, store):
        self.index, self.store = index, store

    def __call__(self, i):
        """As DecodedPictures; what could not be read when the store was made raises its error here."""
        if i not in self.store:
            read_picture(self.index.path(i))  # raises, unless the file was mended in the meantime
            raise UnreadablePicture(
                self.index.path(i), "could not be read when the cache was made; start again"
            )
        whole_hw = self.store.whole_hw[i]
        picture = torch.from_numpy(self.store.read(i)).permute(2, 0, 1)
        return (
            (picture,)
            if (whole_hw == self.store.sizes_hw[i]).all()
            else (picture, torch.from_numpy(whole_hw))
        )

    def kept_bytes(self):
        """Nothing: the system drops what it holds of files when memory is short."""
        return 0, 0

    def subset(self, rows):
        return StoredPictures(self.index.subset(rows), self.store.subset(rows))


def store_pictures(index, least_side=None):
    """The StoredPictures of an index, after decoding what is missing or has changed. Raises CacheError.

    index: as of DecodedPictures, with `folder` and `name(i)`. Pictures of another least_side lie in
    another folder.
    """
    (store,) = open_stores([training_contents(index, least_side)])
    return StoredPictures(index, store)


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
    """uint8 [h, w, 3]; raises UnreadablePicture."""
    picture = read_picture(path) if least_side is None else read_scaled_picture(path, least_side)[0]
    return picture.permute(1, 2, 0).numpy()


def measure_for_store(path, least_side):
    """(h, w) of decode_for_store, from the header; raises UnreadablePicture."""
    return read_size(path) if least_side is None else scaled_size(path, least_side)
