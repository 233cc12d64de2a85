"""A DetectionIndex that grows image by image."""

import os
from array import array

import numpy as np

from visionloop.datasets.detection.index import DetectionIndex
from visionloop.datasets.io.paths import join_paths


class GrowingIndex:
    """The images and boxes of one split, in columns: no Python object per box, however many there are.

    folder: of the images; numbers: {class name: number in order of first appearance}, which the
    splits of a dataset share.
    """

    def __init__(self, source, folder, numbers):
        self.source, self.folder, self.numbers = os.fspath(source), os.fspath(folder), numbers
        self.names = []
        self.sizes, self.counts, self.boxes, self.labels, self.crowd = (
            array("q"),
            array("q"),
            array("d"),
            array("q"),
            array("b"),
        )

    def __len__(self):
        return len(self.names)

    def add(self, name, size_hw, boxes, kinds, crowd):
        """One image. name: relative to the folder; boxes: rows of xywh in pixels; kinds: class names; crowd: truths, one per box."""
        self.names.append(os.fsencode(name))
        self.sizes.extend(size_hw)
        self.counts.append(len(boxes))
        for box in boxes:
            self.boxes.extend(box)
        self.labels.extend(self.numbers.setdefault(kind, len(self.numbers)) for kind in kinds)
        self.crowd.extend(map(bool, crowd))

    def index(self):
        """The DetectionIndex. Classes are sorted by name and have the ids 1, 2, ...; so have the images, in order of addition."""
        classes = tuple(sorted(self.numbers))
        label_of = np.zeros(
            max(1, len(classes)), dtype=np.int32
        )  # a class's number -> its place by name
        for label, kind in enumerate(classes):
            label_of[self.numbers[kind]] = label
        boxes = np.array(self.boxes, dtype=np.float64).reshape(-1, 4)
        return DetectionIndex(
            source=self.source,
            folder=self.folder,
            classes=classes,
            category_ids=tuple(range(1, len(classes) + 1)),
            **join_paths(self.names),
            image_ids=np.arange(1, len(self) + 1),
            sizes_hw=np.array(self.sizes, dtype=np.int64).reshape(-1, 2),
            offsets=np.concatenate([[0], np.array(self.counts, dtype=np.int64).cumsum()]).astype(
                np.int64
            ),
            boxes=boxes,
            labels=label_of[np.array(self.labels, dtype=np.int64)],
            crowd=np.array(self.crowd, dtype=bool),
            areas=boxes[:, 2] * boxes[:, 3],
        )
