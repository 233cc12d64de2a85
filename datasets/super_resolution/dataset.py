"""Matches of small and large images: read whole or in crops, from decoded copies on disk or from the files themselves."""

import random
from functools import partial

from torch.utils.data import Dataset

from visionloop.datasets.cache.store import Contents, open_stores
from visionloop.datasets.io.images import UnreadableImage, read_size
from visionloop.datasets.super_resolution.downscale import (
    decode,
    decode_small,
    measure_small,
    mod_cropped,
    require_match,
    shrink,
    too_small,
)

CACHES = ("disk", "none")
# Pixels of the small image around a crop from which it is made; the kernel reaches 2. The crop is
# then the whole image's, bit for bit: at x2, x4 and x8 all sums are exact, and at x3 they are
# whole numbers over 81, so that none lies where rounding turns.
MARGIN = 4


class SuperResolutionDataset(Dataset):
    """Samples of pairs. transform: a preset of super_resolution_transforms.py; with a `side` it is given random crops, else whole images.

    An epoch is one crop of each image. The crop lies evenly anywhere on the small image's
    pixels.
    """

    def __init__(self, pairs, transform):
        self.pairs, self.transform = pairs, transform

    def __len__(self):
        return len(self.pairs.index)

    def __getitem__(self, i):
        """Raises UnreadableImage, an OSError, that names the image; also where a pair does not match or a crop does not fit."""
        name, side = self.pairs.index.name(i), self.transform.side
        if side is None:
            return self.transform(*self.pairs.whole(i), name=name)
        height, width = self.pairs.lr_size(i)
        if min(height, width) < side:
            raise UnreadableImage(
                self.name(i), too_small(height, width, side, self.pairs.index.scale)
            )
        top, left = random.randint(0, height - side), random.randint(0, width - side)
        return self.transform(*self.pairs.crop(i, top, left, side), name=name)

    def name(self, i):
        """Path of the large image i, for messages."""
        return self.pairs.index.path(i)

    def fingerprint(self):
        return self.pairs.index.fingerprint()

    def subset(self, indices):
        """A dataset of these images alone, in this order, with the same transform."""
        return SuperResolutionDataset(self.pairs.subset(indices), self.transform)


def open_pairs(index, cache):
    """The pairs of an index. Raises CacheError.

    cache: "disk" keeps decoded images, see image_store.py; "none" decodes the files for each
    sample.
    """
    assert cache in CACHES, cache
    if cache == "none":
        return DecodedPairs(index)
    large, *small = open_stores(pair_contents(index))
    return StoredPairs(index, large, small[0] if small else large)


class DecodedPairs:
    """Matches that are decoded each time. Both kinds of pairs give the same bytes; images are uint8 [H, W, 3]."""

    def __init__(self, index):
        self.index = index

    def lr_size(self, i):
        """(height, width) of the small image, from headers alone."""
        scale = self.index.scale
        if self.index.lr_folder:
            return read_size(self.index.lr_path(i))
        return tuple(side // scale for side in read_size(self.index.path(i)))

    def whole(self, i):
        """(small image, large image cropped to `scale` times its size)."""
        scale, path = self.index.scale, self.index.path(i)
        large = decode(path)
        small = self._given(i, large)
        if small is None:
            large = mod_cropped(large, scale, path)
            return shrink(large, scale), large
        return small, large[: scale * small.shape[0], : scale * small.shape[1]]

    def crop(self, i, top, left, side):
        """The same part of both: side x side pixels of the small one, from its pixel (top, left)."""
        scale, large = self.index.scale, decode(self.index.path(i))
        small = self._given(i, large)
        if small is not None:
            small = small[top : top + side, left : left + side]
        else:
            small = self._made(large, top, left, side)
        return small, large[
            scale * top : scale * (top + side), scale * left : scale * (left + side)
        ]

    def subset(self, rows):
        return DecodedPairs(self.index.subset(rows))

    def _given(self, i, large):
        """The small image from its file, None where it is to be made. Raises MismatchedPair."""
        if self.index.lr_folder is None:
            return None
        small = decode(self.index.lr_path(i))
        require_match(self.index, i, small.shape[:2], large.shape[:2])
        return small

    def _made(self, large, top, left, side):
        """A part of the small image, made from what lies around it alone."""
        scale = self.index.scale
        bottom, right = (large_side // scale for large_side in large.shape[:2])
        first_row, first_column = max(0, top - MARGIN), max(0, left - MARGIN)
        last_row, last_column = min(bottom, top + side + MARGIN), min(right, left + side + MARGIN)
        around = large[
            scale * first_row : scale * last_row, scale * first_column : scale * last_column
        ]
        top, left = top - first_row, left - first_column
        return shrink(around, scale)[top : top + side, left : left + side]


class StoredPairs:
    """Matches whose images lie decoded on the disk. What could not be read when the stores were made raises its error here."""

    def __init__(self, index, large, small):
        self.index, self.large, self.small = index, large, small

    def lr_size(self, i):
        """(height, width) of the small image."""
        self._require(i)
        height, width = self.small.size_hw(i)
        return (
            (height, width)
            if self.small is not self.large
            else (height // self.index.scale, width // self.index.scale)
        )

    def whole(self, i):
        """(small image, large image cropped to `scale` times its size); views of what lies on the disk."""
        self._require(i)
        small, scale = self.small.image(i), self.index.scale
        return small, self.large.image(i)[: scale * small.shape[0], : scale * small.shape[1]]

    def crop(self, i, top, left, side):
        """The same part of both: side x side pixels of the small one, from its pixel (top, left); views."""
        self._require(i)
        scale = self.index.scale
        large = self.large.image(i)[
            scale * top : scale * (top + side), scale * left : scale * (left + side)
        ]
        return self.small.image(i)[top : top + side, left : left + side], large

    def subset(self, rows):
        large = self.large.subset(rows)
        return StoredPairs(
            self.index.subset(rows),
            large,
            large if self.small is self.large else self.small.subset(rows),
        )

    def _require(self, i):
        """Raises what is wrong with a pair, if anything is."""
        if i not in self.large or i not in self.small:
            DecodedPairs(self.index).whole(i)  # raises, unless the file was mended in the meantime
            raise UnreadableImage(
                self.index.path(i), "could not be read when the cache was made; start again"
            )
        if self.index.lr_folder:
            require_match(self.index, i, self.small.size_hw(i), self.large.size_hw(i))


def pair_contents(index):
    """[Contents] of the stores of an index: the large images, and where the scale is not 1 the small ones."""
    names = [index.name(i) for i in range(len(index))]
    large = Contents("HR", index.folder, names, decode, read_size)
    if index.scale == 1:
        return [large]
    if index.lr_folder:
        return [
            large,
            Contents(
                f"LR_x{index.scale}",
                index.lr_folder,
                [index.lr_name(i) for i in range(len(index))],
                decode,
                read_size,
            ),
        ]
    make, measure = (
        partial(decode_small, scale=index.scale),
        partial(measure_small, scale=index.scale),
    )
    return [large, Contents(f"LR_x{index.scale}-from-HR", index.folder, names, make, measure)]
