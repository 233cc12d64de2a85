"""Reader of boxes in YOLO's format: `data.yaml`, images, and a text file of boxes for each.

A line is `class cx cy w h` in shares of the image, or `class x y x y x y ...`, an outline, of
which the bounding box is taken. The text of `.../images/a/x.jpg` is `.../labels/a/x.txt`; where no
folder is called images, it is next to the image. An image without one has no boxes.
"""

import math
import os
from array import array
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from visionloop.datasets.detection.coco_categories import match_classes
from visionloop.datasets.detection.index import DetectionIndex, require_index
from visionloop.datasets.detection.problems import Problem, Report, index_problems
from visionloop.datasets.detection.yolo_description import list_images, read_description
from visionloop.datasets.io.images import UnreadableImage, read_size
from visionloop.datasets.io.json_columns import show
from visionloop.datasets.io.layout import DataLayoutError, shorten
from visionloop.datasets.io.names import FileFinder
from visionloop.datasets.io.paths import join_paths
from visionloop.datasets.io.text import NotText, read_text

SLACK = 0.01  # shares may exceed 0..1 by this much: rounding

# (class, cx, cy, w, h)
Box: TypeAlias = tuple[int, float, float, float, float]


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
        folder, names = list_images(description, split)
    except DataLayoutError as error:
        report.error(error.why, error.path)
        return None, report.problems
    class_names, category_ids = match_classes(
        description.classes, tuple(range(len(description.classes))), classes, report
    )
    label_of = {int(key): label for label, key in enumerate(category_ids) if key is not None}
    names, sizes_hw = _sizes(folder, names, report)
    here = os.path.dirname(os.path.abspath(yaml_file))
    texts = find_label_files([os.path.join(folder, name) for name in names], here)
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
    )
    return index, report.problems + index_problems(index)


def label_file(image: str, root: str) -> str:
    """Return the path of the text file with the boxes of an image.

    Args:
        image: path of the image.
        root: of the dataset; folders above it are not searched for "images".
    """
    below = os.path.relpath(image, root)
    base, inner = ("", image) if below.startswith("..") else (root, below)
    parts = os.path.splitext(inner)[0].split(os.sep)
    for position in range(len(parts) - 2, -1, -1):
        if parts[position] == "images":
            parts[position] = "labels"
            break
    return os.path.join(base, os.sep.join(parts) + ".txt")


def find_label_files(images: Sequence[str], root: str) -> list[str]:
    """Return the path of each image's text file as it is on disk, or as expected without one."""
    finder = FileFinder(root)
    texts = [label_file(image, root) for image in images]
    found = [finder.find(os.path.relpath(text, root)) for text in texts]
    return [
        os.path.join(root, name) if name else text for name, text in zip(found, texts, strict=True)
    ]


def read_labels(
    path: str | os.PathLike[str], num_classes: int
) -> tuple[list[Box], list[tuple[int, str]]]:
    """Return (boxes, [(line number, error)]) of a text file; both empty without the file."""
    try:
        lines = read_text(path, errors="replace").split("\n")
    except FileNotFoundError:
        return [], []
    except NotText as error:
        return [], [(1, str(error))]
    except OSError as error:
        return [], [(1, error.strerror or str(error))]
    boxes, errors = [], []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        try:
            boxes.append(_box([_number(word) for word in words], num_classes))
        except ValueError as error:
            errors.append((number, str(error)))
    return boxes, errors


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise ValueError(f"{show(word)} is no number") from None


def _box(values: Sequence[float], num_classes: int) -> Box:
    """Return the box of a line's numbers. Raises ValueError."""
    label, shares = values[0], values[1:]
    if not (len(shares) == 4 or (len(shares) >= 6 and len(shares) % 2 == 0)):
        raise ValueError(
            f"{len(values)} numbers, expected are 5 (class cx cy w h) or an outline "
            "(class x y x y x y ...)"
        )
    if label not in range(num_classes):
        raise ValueError(f"class {label:g}, expected 0 to {num_classes - 1}")
    if not all(math.isfinite(share) and -SLACK <= share <= 1 + SLACK for share in shares):
        outside = next(share for share in shares if not -SLACK <= share <= 1 + SLACK)
        raise ValueError(f"{outside:g} is no share of the image (0 to 1); are these pixels?")
    if len(shares) == 4:
        cx, cy, width, height = shares
        return int(label), cx, cy, width, height
    left, right = min(shares[::2]), max(shares[::2])
    top, bottom = min(shares[1::2]), max(shares[1::2])
    return int(label), (left + right) / 2, (top + bottom) / 2, right - left, bottom - top


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
    texts: Sequence[str], label_of: Mapping[int, int], num_classes: int, report: Report
) -> tuple[NDArray[np.float64], NDArray[np.int32], list[int]]:
    """Return (shares float64 [M, 4] cxcywh, labels int32 [M], number of boxes of each image)."""
    rows = array("d")  # no Python objects for each box
    counts: list[int] = []
    errors: list[tuple[str, int, str]] = []
    for text in texts:
        boxes, line_errors = read_labels(text, num_classes)
        errors += [(text, number, why) for number, why in line_errors]
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
    if texts and not any(os.path.exists(text) for text in texts):
        report.error(
            f"none of {len(texts)} images has a text of boxes; expected {shorten(texts, 2)}"
        )
    table = np.array(rows, dtype=np.float64).reshape(-1, 5)
    return table[:, 1:], table[:, 0].astype(np.int32), counts
