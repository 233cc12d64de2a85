"""Checks of a SegmentsIndex after reading, for every form of annotation."""

from visionloop.datasets.detection.problems import (
    CROWD_HINT,
    USUAL_CROWDS,
    Problem,
    Report,
    check_classes,
    check_files,
    check_repeated_images,
)
from visionloop.datasets.segments.index import SegmentsIndex


def segment_problems(index: SegmentsIndex, need_images: bool = True) -> list[Problem]:
    """Return the problems of an index that was read from a json.

    Args:
        index: the images and segments.
        need_images: whether a missing image file is an error.
    """
    report = Report(index.source)
    if need_images:
        check_files(index, report)
    if index.masks is not None:
        check_files(index.masks, report, "masks")
    crowds, total = int(index.crowd.sum()), len(index.labels)
    if crowds > USUAL_CROWDS * total:
        report.note(
            f"{crowds} of {total} segments are crowds (iscrowd 1): never trained on, ignored in "
            f"scores; {CROWD_HINT}"
        )
    check_classes(index.classes, index.labels, "segments", report)
    check_repeated_images(index, report)
    return report.problems


def nothing_to_train(index: SegmentsIndex) -> str | None:
    """Return the reason why a model would learn nothing from an index, or None.

    Segments that are given by class ids and object numbers are known after reading alone: None.
    """
    if index.class_file is not None:
        return None
    number = len(index.labels)
    if not number:
        return "no segments at all; there is nothing to learn"
    if index.crowd.all():
        return (
            f"all {number} segments are crowds (iscrowd 1), which training leaves out; {CROWD_HINT}"
        )
    return None


def nothing_to_score(index: SegmentsIndex) -> str | None:
    """Return the reason why a validation index has no scores, or None; see `nothing_to_train`."""
    if index.class_file is not None or (~index.crowd).any():
        return None
    others = " (crowds do not count)" if len(index.crowd) else ""
    return (
        f"no segments to validate with{others}, so there is nothing to score; add images with "
        "segments"
    )
