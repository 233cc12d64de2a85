"""Pairing of the images of a YOLO split with their label files."""

import os
from collections.abc import Sequence

from visionloop.datasets.detection.problems import Report
from visionloop.datasets.io.layout import shorten
from visionloop.datasets.io.names import FileFinder

USUAL_WITHOUT = 0.1  # share of images without objects that data is often mixed with


def label_file(image: str, root: str) -> str:
    """Return the expected path of the label file of an image.

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


def find_label_files(images: Sequence[str], root: str, report: Report) -> list[str | None]:
    """Return the path of each image's label file, None without one.

    Beside its expected place, a label file may be called x.jpg.txt, or lie next to its image.

    Args:
        images: paths of the images.
        root: of the dataset.
        report: receives what is odd: images without a label file, or with the same one.
    """
    finder = FileFinder(root)
    found: list[str | None] = []
    beside, shared = [], []
    image_of: dict[str, str] = {}
    for image in images:
        expected = label_file(image, root)
        suffix = os.path.splitext(image)[1]
        stem, next_to = os.path.splitext(expected)[0], os.path.splitext(image)[0]
        candidates = [f"{stem}.txt", f"{stem}{suffix}.txt", f"{next_to}.txt", f"{image}.txt"]
        names = (finder.find(os.path.relpath(path, root)) for path in candidates)
        name = next((name for name in names if name is not None), None)
        found.append(None if name is None else os.path.join(root, name))
        if name is None:
            continue
        in_place = os.path.dirname(os.path.relpath(expected, root))
        if os.path.dirname(os.path.relpath(image, root)) == os.path.dirname(name) != in_place:
            beside.append(name)
        first = image_of.setdefault(name, image)
        if first != image:
            both = f"{os.path.relpath(first, root)} and {os.path.relpath(image, root)}"
            shared.append((both, f"have one label file, {name}; keep one of the images"))
    report.error_each(shared)
    if beside and len(beside) < len(images):
        report.note(
            f"{len(beside)} of {len(images)} label files lie beside their images, not in labels/: "
            f"{shorten(beside, 2)}"
        )
    _report_missing(images, found, root, finder, report)
    return found


def _report_missing(
    images: Sequence[str],
    found: Sequence[str | None],
    root: str,
    finder: FileFinder,
    report: Report,
) -> None:
    """Report images without a label file; it is an error when none has one."""
    missing = [image for image, text in zip(images, found, strict=True) if text is None]
    expected = [os.path.relpath(label_file(image, root), root) for image in missing]
    if missing and len(missing) == len(images):
        texts = [os.path.join(root, name) for name in expected]
        report.error(
            f"none of {len(images)} images has a text of boxes; expected {shorten(texts, 2)}"
        )
    elif len(missing) > USUAL_WITHOUT * len(images):
        level = os.path.dirname(expected[0])
        used = {os.path.relpath(text, root) for text in found if text is not None}
        others = sorted(
            name
            for name in finder.names(level)
            if name.endswith(".txt") and os.path.join(level, name) not in used
        )
        hint = f"; texts of no image there: {shorten(others, 2)}" if others else ""
        share = 100 * len(missing) / len(images)
        names = shorten([os.path.relpath(image, root) for image in missing], 2)
        report.note(
            f"{len(missing)} of {len(images)} images ({share:.0f} %) have no label file and count "
            f"as images without boxes: {names}; expected {expected[0]}{hint}"
        )
