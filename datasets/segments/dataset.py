"""Images with segments as samples for instance and panoptic segmentation."""

from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from visionloop.datasets.augmentation.function import UserFunction
from visionloop.datasets.augmentation.samples import augment_masks
from visionloop.datasets.cache.in_memory import InMemoryCache
from visionloop.datasets.segments.index import SegmentsIndex
from visionloop.datasets.segments.layers import layers_of_masks, segment_masks
from visionloop.datasets.segments.reading import NUM_TRAINING, read_row, unpack_ground_truth
from visionloop.datasets.segments.transforms import SegmentsEvalPreset, SegmentsTrainPreset

# tensors, and "ground_truth": see `reading.read_segments`
Sample: TypeAlias = dict[str, Any]  # type: ignore[explicit-any]


class SegmentsDataset(Dataset[Sample]):
    """Samples of a SegmentsIndex.

    A sample is what the transform returns, see SegmentsTrainPreset and SegmentsEvalPreset, and with
    ground truth also {"ground_truth": a dict, see `reading.read_segments`}.
    """

    def __init__(
        self,
        index: SegmentsIndex,
        transform: SegmentsTrainPreset | SegmentsEvalPreset,
        with_ground_truth: bool = False,
        memory: int = 0,
        user_function: UserFunction | None = None,
    ) -> None:
        """Make a dataset.

        Args:
            index: the images and segments.
            transform: of an image with its layers, segments and ignored pixels.
            with_ground_truth: add what evaluation compares with.
            memory: bytes of the machine for decoded images and layers, used where all of them fit,
                see InMemoryCache.
            user_function: function of the user, applied before the transform of training.
        """
        self.index, self.transform, self.memory = index, transform, memory
        self.with_ground_truth, self.user_function = with_ground_truth, user_function
        self._cache = InMemoryCache(partial(read_row, index, with_ground_truth), len(index), memory)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.index)

    def __getitem__(self, i: int) -> Sample:
        """Read sample i.

        Raises:
            UnreadableImage: an OSError, with the image or the mask; also where the size of the
                image is not that of its annotations. Or AugmentError.
        """
        row = self._cache(i)
        image, layers, segments, ignored = row[:NUM_TRAINING]
        if self.user_function:
            image, masks, labels, ignored = augment_masks(
                self.user_function,
                image,
                segment_masks(layers, segments),
                segments[:, 2],
                ignored,
                len(self.classes),
                self.name(i),
            )
            layers, segments = layers_of_masks(masks, labels)
        sample: Sample = self.transform(image, layers, segments, ignored)
        if self.with_ground_truth:
            sample["ground_truth"] = unpack_ground_truth(self.index, row[NUM_TRAINING:])
        return sample

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in order of label."""
        return self.index.classes

    def name(self, i: int) -> str:
        """Return the path of image i, for messages."""
        return self.index.path(i)

    def cached_bytes(self) -> tuple[int, int]:
        """Return (bytes of images and layers cached in this process now, once all were read)."""
        return self._cache.cached_bytes()

    def fingerprint(self) -> str:
        """Return the fingerprint of the index."""
        return self.index.fingerprint()

    def subset(self, indices: NDArray[np.int64]) -> "SegmentsDataset":
        """Return a dataset of these images alone, in this order, with the same transform."""
        return SegmentsDataset(
            self.index.subset(indices),
            self.transform,
            self.with_ground_truth,
            self.memory,
            self.user_function,
        )
