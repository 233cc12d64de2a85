"""Images with masks of class ids: which there are, and samples of them.

The index is columnar, like that of the image folders: a pair costs some hundred bytes, in each
worker too.
"""

import hashlib
import os
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from torch.utils.data import Dataset

from visionloop.datasets.cache.in_memory import Kept
from visionloop.datasets.io.images import read_image
from visionloop.datasets.segmentation.class_file import ClassFile
from visionloop.datasets.segmentation.masks import UnreadableMask, read_mask

COLUMNS = ("starts", "stops", "mask_starts", "mask_stops", "sizes", "mask_sizes")


@dataclass(frozen=True, eq=False)
class SegmentationIndex:
    """Which images there are, sorted by path, and the mask of each.

    folder, mask_folder: of the split's images and masks; class_file: what the masks' values mean;
    paths: the images' paths relative to their folder, as bytes one behind the other, row i at
    starts[i]:stops[i]; mask_paths, mask_starts, mask_stops: the same of the masks; sizes,
    mask_sizes: of the files in bytes; all columns int64 [N].
    """

    folder: str
    mask_folder: str
    class_file: ClassFile
    paths: bytes
    starts: np.ndarray
    stops: np.ndarray
    mask_paths: bytes
    mask_starts: np.ndarray
    mask_stops: np.ndarray
    sizes: np.ndarray
    mask_sizes: np.ndarray

    def __len__(self):
        return len(self.starts)

    @property
    def classes(self):
        """Names in order of id."""
        return self.class_file.classes

    @property
    def colors(self):
        """uint8 [K, 3], or None where the data names none."""
        return self.class_file.colors

    def name(self, i):
        """Path of image i relative to its folder."""
        return os.fsdecode(self.paths[self.starts[i] : self.stops[i]])

    def path(self, i):
        return os.path.join(self.folder, self.name(i))

    def mask_path(self, i):
        return os.path.join(
            self.mask_folder, os.fsdecode(self.mask_paths[self.mask_starts[i] : self.mask_stops[i]])
        )

    def subset(self, rows):
        """The same kind of index with these images alone, in this order; the paths are shared."""
        rows = np.asarray(rows, dtype=np.int64)
        return replace(self, **{column: getattr(self, column)[rows] for column in COLUMNS})

    def fingerprint(self):
        """SHA-256 over the classes and what values mean, relative paths and file sizes, in order.

        Not over contents or the folder's own place: a copy is the same data, an edit that keeps a
        file's size goes unseen.
        """
        digest = hashlib.sha256(self.class_file.digest().encode())
        for column in (
            self.stops - self.starts,
            self.mask_stops - self.mask_starts,
            self.sizes,
            self.mask_sizes,
        ):
            digest.update(column.astype("<i8").tobytes())
        places = (
            (self.paths, self.starts, self.stops),
            (self.mask_paths, self.mask_starts, self.mask_stops),
        )
        for paths, starts, stops in places:
            digest.update(
                b"".join(
                    paths[start:stop]
                    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)
                )
            )
        return digest.hexdigest()


class SegmentationDataset(Dataset):
    """Samples of a SegmentationIndex.

    For training, transform(image, ids) -> (pixels, ids) and a sample is {"pixel_values": uint8
    [3, S, S], "ids": uint8 [S, S], 255 ignored}. with_truth: for evaluation, a sample is what the
    transform makes of image and ids, see SegmentationEvalPreset. memory: bytes of the machine for
    decoded images and masks, used where all of them fit (see Kept).
    """

    def __init__(self, index, transform, with_truth=False, memory=0):
        self.index, self.transform, self.with_truth, self.memory = (
            index,
            transform,
            with_truth,
            memory,
        )
        self._read = Kept(partial(read_pair, index), len(index), memory)

    def __len__(self):
        return len(self.index)

    def __getitem__(self, i):
        """Raises UnreadableImage, an OSError, that names the image or the mask; also where their sizes differ."""
        image, ids = self._read(i)
        if self.with_truth:
            return self.transform(image, ids)
        pixel_values, ids = self.transform(image, ids)
        return {"pixel_values": pixel_values, "ids": ids}

    @property
    def classes(self):
        return self.index.classes

    def name(self, i):
        """Path of image i, for messages."""
        return self.index.path(i)

    def kept_bytes(self):
        """(bytes of images and masks that this process keeps now, and once all were read)."""
        return self._read.kept_bytes()

    def fingerprint(self):
        return self.index.fingerprint()

    def subset(self, indices):
        """A dataset of these images alone, in this order, with the same transform."""
        return SegmentationDataset(
            self.index.subset(indices), self.transform, self.with_truth, self.memory
        )


def read_pair(index, i):
    """(upright image uint8 [3, H, W], class ids uint8 [H, W]) of row i. Raises UnreadableImage, for the mask UnreadableMask."""
    image, ids = read_image(index.path(i)), read_mask(index.mask_path(i), index.class_file)
    why = mask_mismatch(image.shape[-2:], ids.shape)
    if why:
        raise UnreadableMask(index.mask_path(i), why)
    return image, ids


def mask_mismatch(image_hw, mask_hw):
    """What to say when a mask is not of the size of its upright image; None when it is."""
    image_hw, mask_hw = tuple(image_hw), tuple(mask_hw)
    if image_hw == mask_hw:
        return None
    hint = (
        ": the mask was drawn before the image's EXIF orientation was applied"
        if image_hw == mask_hw[::-1]
        else ""
    )
    return f"is {mask_hw[0]} x {mask_hw[1]} (height x width), its image {image_hw[0]} x {image_hw[1]}{hint}"
