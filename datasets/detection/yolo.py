"""Boxes in YOLO's form, read straight into the same index as COCO's: `data.yaml`, images, and a text of boxes for each.

A line is `class cx cy w h` in shares of the image, or `class x y x y x y ...`, an outline, of
which the box around it is taken. The text of `.../images/a/x.jpg` is `.../labels/a/x.txt`; where no
folder is called images, it lies beside the image. An image without one has no boxes.
"""

import math
import os
from array import array

import numpy as np

from visionloop.datasets.detection.coco_columns import match_classes
from visionloop.datasets.detection.index import DetectionIndex, raise_first_error
from visionloop.datasets.detection.problems import Report, index_problems
from visionloop.datasets.detection.yolo_description import list_images, read_description
from visionloop.datasets.io.images import UnreadableImage, read_size
from visionloop.datasets.io.json_columns import show
from visionloop.datasets.io.layout import DataLayoutError, shorten
from visionloop.datasets.io.paths import join_paths

SLACK = 0.01  # shares may leave 0..1 by so much: rounding


def read_yolo(yaml_file, split, classes=None):
    """The DetectionIndex of a split; ids of images are 1, 2, ... in order of path. Raises DataLayoutError.

    Sizes come from the headers of the images. classes: names of the training split, as in
    read_coco.
    """
    index, problems = inspect_yolo(yaml_file, split, classes)
    raise_first_error(problems)
    return index


def inspect_yolo(yaml_file, split, classes=None):
    """(DetectionIndex or None, problems) of a split; see inspect_coco. Images that cannot be read are problems and left out."""
    report = Report(yaml_file)
    try:
        description = read_description(yaml_file)
        folder, names = list_images(description, split)
    except DataLayoutError as error:
        report.error(error.why, error.path)
        return None, report.problems
    matched = match_classes(
        description.classes, tuple(range(len(description.classes))), classes, report
    )
    label_of = {key: label for label, key in enumerate(matched[1]) if key is not None}
    names, sizes_hw = _sizes(folder, names, report)
    here = os.path.dirname(os.path.abspath(yaml_file))
    texts = [label_file(os.path.join(folder, name), here) for name in names]
    shares, labels, counts = _all_boxes(texts, label_of, len(description.classes), report)
    if not names:  # none can be read
        return None, report.problems
    sides = np.repeat(sizes_hw[:, ::-1], counts, axis=0)  # width and height of each box's image
    boxes = np.concatenate(
        [(shares[:, :2] - shares[:, 2:] / 2) * sides, shares[:, 2:] * sides], axis=1
    )
    index = DetectionIndex(
        source=description.source,
        folder=folder,
        classes=matched[0],
        category_ids=matched[1],
        image_ids=np.arange(1, len(names) + 1),
        sizes_hw=sizes_hw,
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        boxes=boxes,
        labels=labels,
        crowd=np.zeros(len(boxes), dtype=bool),
        areas=boxes[:, 2:].clip(0).prod(axis=1),
        **join_paths([os.fsencode(name) for name in names]),
    )
    return index, report.problems + index_problems(index)


def label_file(image, root):
    """The path of the text with the boxes of an image. root: of the dataset, folders above it are not asked for their name."""
    below = os.path.relpath(image, root)
    base, inner = ("", image) if below.startswith("..") else (root, below)
    parts = os.path.splitext(inner)[0].split(os.sep)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return os.path.join(base, os.sep.join(parts) + ".txt")


def read_labels(path, num_classes):
    """([(class, cx, cy, w, h)], [(line number, what is wrong with it)]) of one text; nothing where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        return [], []
    except OSError as error:
        return [], [(1, error.strerror or str(error))]
    boxes, wrong = [], []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        try:
            boxes.append(_box([_number(word) for word in words], num_classes))
        except ValueError as error:
            wrong.append((number, str(error)))
    return boxes, wrong


def _number(word):
    try:
        return float(word)
    except ValueError:
        raise ValueError(f"{show(word)} is no number") from None


def _box(values, num_classes):
    """(class, cx, cy, w, h) of a line's numbers. Raises ValueError."""
    kind, shares = values[0], values[1:]
    if not (len(shares) == 4 or (len(shares) >= 6 and len(shares) % 2 == 0)):
        raise ValueError(
            f"{len(values)} numbers, expected are 5 (class cx cy w h) or an outline (class x y x y x y ...)"
        )
    if kind not in range(num_classes):
        raise ValueError(f"class {kind:g}, expected 0 to {num_classes - 1}")
    if not all(math.isfinite(share) and -SLACK <= share <= 1 + SLACK for share in shares):
        worst = next(share for share in shares if not -SLACK <= share <= 1 + SLACK)
        raise ValueError(f"{worst:g} is no share of the image (0 to 1); are these pixels?")
    if len(shares) == 4:
        return int(kind), *shares
    left, right, top, bottom = (
        min(shares[::2]),
        max(shares[::2]),
        min(shares[1::2]),
        max(shares[1::2]),
    )
    return int(kind), (left + right) / 2, (top + bottom) / 2, right - left, bottom - top


def _sizes(folder, names, report):
    """(names of the images that can be read, their sizes int64 [N, 2])."""
    readable, sizes, wrong = [], [], []
    for name in names:
        try:
            sizes.append(read_size(os.path.join(folder, name)))
            readable.append(name)
        except UnreadableImage as error:
            wrong.append((name, error.why))
    report.error_each(
        [(f"image {name}", why) for name, why in wrong],
        os.path.join(folder, wrong[0][0]) if wrong else None,
    )
    return readable, np.array(sizes, dtype=np.int64).reshape(-1, 2)


def _all_boxes(texts, label_of, num_classes, report):
    """(shares float64 [M, 4] cxcywh, labels int32 [M], number of boxes of each image)."""
    rows, counts, wrong = array("d"), [], []  # no Python objects per box
    for text in texts:
        boxes, complaints = read_labels(text, num_classes)
        wrong += [(text, number, why) for number, why in complaints]
        boxes = [(label_of[kind], *shares) for kind, *shares in boxes if kind in label_of]
        counts.append(len(boxes))
        for box in boxes:
            rows.extend(box)
    if wrong:
        # the file is named by the path of the problem
        report.error_each(
            [(f"line {wrong[0][1]}", wrong[0][2])]
            + [(f"{text}:{number}", "") for text, number, _ in wrong[1:]],
            wrong[0][0],
        )
    if texts and not any(os.path.exists(text) for text in texts):
        report.error(
            f"none of {len(texts)} images has a text of boxes; expected {shorten(texts, 2)}"
        )
    table = np.array(rows, dtype=np.float64).reshape(-1, 5)
    return table[:, 1:], table[:, 0].astype(np.int32), counts
