"""Reader of boxes in YOLO's format: `data.yaml`, images, and a text file of boxes for each.

The text of `.../images/a/x.jpg` is `.../labels/a/x.txt`; where no folder is called images, it is
next to the image. An image without one has no boxes.
"""

import os
from array import array
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from visionloop.datasets.detection.coco_categories import match_classes
from visionloop.datasets.detection.index import DetectionIndex, require_index
from visionloop.datasets.detection.problems import Problem, Report, index_problems
from visionloop.datasets.detection.yolo_description import list_images, read_description
from visionloop.datasets.detection.yolo_files import find_label_files
from visionloop.datasets.detection.yolo_labels import LabelParser
from visionloop.datasets.io.images import UnreadableImage, read_size
from visionloop.datasets.io.layout import DataLayoutError
from visionloop.datasets.io.paths import join_paths


def read_yolo(
    yaml_file: str | os.PathLike[str], split: str, classes: Sequence[str] | None = None
) -> DetectionIndex:
    """Read the DetectionIndex of a split; the ids of images are 1, 2, ... in order of path.

    Sizes come from the headers of the images.

    Args:
        yaml_file: the description.
        split: "train", "val" or "test".
        classes: names of the training split, as in read_coco.

    Raises:
        DataLayoutError: one line with the first error.
    """
    index, problems = inspect_yolo(yaml_file, split, classes)
    return require_index(index, problems)


def inspect_yolo(
    yaml_file: str | os.PathLike[str], split: str, classes: Sequence[str] | None = None
) -> tuple[DetectionIndex | None, list[Problem]]:
    """Return (DetectionIndex or None, problems) of a split; see read_yolo and inspect_coco.

    Images that cannot be read are problems and left out.
    """
    report = Report(yaml_file)
    try:
        description = read_description(yaml_file)
        folder, names, others = list_images(description, split)
    except DataLayoutError as error:
        report.error(error.why, error.path)
        return None, report.problems
    class_names, category_ids = match_classes(
        description.classes, tuple(range(len(description.classes))), classes, report
    )
    label_of = {int(key): label for label, key in enumerate(category_ids) if key is not None}
    names, sizes_hw = _sizes(folder, names, report)
    here = os.path.dirname(os.path.abspath(yaml_file))
    texts = find_label_files([os.path.join(folder, name) for name in names], here, report)
    parser = LabelParser(len(description.classes), description.keypoints)
    shares, labels, counts = _all_boxes(texts, label_of, parser, report)
    if not names:  # none can be read
        return None, report.problems
    sides = np.repeat(sizes_hw[:, ::-1], counts, axis=0)  # width and height of each box's image
    boxes = np.concatenate(
        [(shares[:, :2] - shares[:, 2:] / 2) * sides, shares[:, 2:] * sides], axis=1
    )
    index = DetectionIndex(
        source=description.source,
        folder=folder,
        classes=class_names,
        category_ids=category_ids,
        image_ids=np.arange(1, len(names) + 1),
        sizes_hw=sizes_hw,
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        boxes=boxes,
        labels=labels,
        crowd=np.zeros(len(boxes), dtype=bool),
        areas=boxes[:, 2:].clip(0).prod(axis=1),
        **join_paths([os.fsencode(name) for name in names]),
        passed_over=others,
    )
    return index, report.problems + index_problems(index)


def _sizes(
    folder: str, names: Sequence[str], report: Report
) -> tuple[list[str], NDArray[np.int64]]:
    """Return (names of the images that can be read, their (height, width) int64 [N, 2])."""
    readable, sizes, errors = [], [], []
    for name in names:
        try:
            sizes.append(read_size(os.path.join(folder, name)))
            readable.append(name)
        except UnreadableImage as error:
            errors.append((name, error.why))
    report.error_each(
        [(f"image {name}", why) for name, why in errors],
        os.path.join(folder, errors[0][0]) if errors else None,
    )
    return readable, np.array(sizes, dtype=np.int64).reshape(-1, 2)


def _all_boxes(
    texts: Sequence[str | None], label_of: Mapping[int, int], parser: LabelParser, report: Report
) -> tuple[NDArray[np.float64], NDArray[np.int32], list[int]]:
    """Return (shares float64 [M, 4] cxcywh, labels int32 [M], number of boxes of each image)."""
    rows = array("d")  # no Python objects for each box
    counts: list[int] = []
    errors: list[tuple[str, int, str]] = []
    for text in texts:
        boxes, line_errors = parser.read(text) if text else ([], [])
        errors += [(text or "", number, why) for number, why in line_errors]
        valid = [(label_of[key], *shares) for key, *shares in boxes if key in label_of]
        counts.append(len(valid))
        for box in valid:
            rows.extend(box)
    if errors:
        # the path of the problem names the first file
        first, others = errors[0], errors[1:]
        report.error_each(
            [
                (f"line {first[1]}", first[2]),
                *((f"{text}:{number}", "") for text, number, _ in others),
            ],
            first[0],
        )
    if why := parser.readings.problem():
        report.error(why)
    table = np.array(rows, dtype=np.float64).reshape(-1, 5)
    return table[:, 1:], table[:, 0].astype(np.int32), counts
