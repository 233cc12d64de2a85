"""A YOLO folder, which training reads as it lies there, as COCO json for other programs."""

from visionloop.datasets.detection.layout import find_annotations, inspect_detection_split
from visionloop.datasets.io.layout import DataLayoutError

SPLITS = ("train", "val", "test")


def read_yolo_splits(source, findings):
    """{split: DetectionIndex} of a YOLO folder, read as training reads it.

    findings: takes images that cannot be read and lines that are no boxes; the index is without
    them. Raises DataLayoutError.
    """
    splits = {}
    for split in SPLITS:
        description = find_annotations(source, split)
        if description is None:
            continue
        if description.suffix == ".json":
            raise DataLayoutError(description, "is COCO json already, no YOLO")
        index, problems = inspect_detection_split(source, split)
        for kind, path, why in problems:
            if kind == "error":
                findings.problem(path, why)
            else:
                findings.note(path, f"{split}: {why}")
        if index is not None:
            splits[split] = index
    if not splits and not findings.problems:
        raise DataLayoutError(
            source, "no YOLO data in it; expected data.yaml with names, train and val"
        )
    return splits
