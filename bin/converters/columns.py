"""Builder of a DetectionIndex, image by image."""

import os
from array import array
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from visionloop.datasets.detection.index import DetectionIndex
from visionloop.datasets.io.paths import join_paths


class DetectionIndexBuilder:
    """The images and boxes of one split in columns, without a Python object per box.

    Args:
        source: path of the annotations.
        folder: of the images.
        class_numbers: {class name: number in order of first appearance}, shared by the splits of a
            dataset.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        folder: str | os.PathLike[str],
        class_numbers: dict[str, int],
    ) -> None:
        self.source, self.folder = os.fspath(source), os.fspath(folder)
        self.class_numbers = class_numbers
        self.names: list[bytes] = []
        self.sizes, self.counts, self.labels = array("q"), array("q"), array("q")
        self.boxes, self.crowd = array("d"), array("b")

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.names)

    def add(
        self,
        name: str,
        size_hw: tuple[int, int],
        boxes: Sequence[Iterable[float]] | NDArray[np.float64],
        class_names: Iterable[str],
        crowd: Iterable[bool],
    ) -> None:
        """Add an image.

        Args:
            name: path relative to the folder.
            size_hw: (height, width) in pixels.
            boxes: [G, 4] xywh in pixels.
            class_names, crowd: of each box.
        """
        self.names.append(os.fsencode(name))
        self.sizes.extend(size_hw)
        self.counts.append(len(boxes))
        for box in boxes:
            self.boxes.extend(box)
        self.labels.extend(
            self.class_numbers.setdefault(name, len(self.class_numbers)) for name in class_names
        )
        self.crowd.extend(map(bool, crowd))

    def build(self) -> DetectionIndex:
        """Return the index.

        Classes are sorted by name and have the ids 1, 2, ...; images have these ids in the order in
        which they were added.
        """
        classes = tuple(sorted(self.class_numbers))
        # class number -> label, which is the position by name
        label_of = np.zeros(max(1, len(classes)), dtype=np.int32)
        for label, name in enumerate(classes):
            label_of[self.class_numbers[name]] = label
        boxes = np.array(self.boxes, dtype=np.float64).reshape(-1, 4)
        stops = np.array(self.counts, dtype=np.int64).cumsum()
        return DetectionIndex(
            source=self.source,
            folder=self.folder,
            classes=classes,
            category_ids=tuple(range(1, len(classes) + 1)),
            **join_paths(self.names),
            image_ids=np.arange(1, len(self) + 1),
            sizes_hw=np.array(self.sizes, dtype=np.int64).reshape(-1, 2),
            offsets=np.concatenate([[0], stops]).astype(np.int64),
            boxes=boxes,
            labels=label_of[np.array(self.labels, dtype=np.int64)],
            crowd=np.array(self.crowd, dtype=bool),
            areas=boxes[:, 2] * boxes[:, 3],
        )
