"""Reader of a YOLO folder, for its conversion to COCO json.

Training reads a YOLO folder as it is; the json is for other programs.
"""

from visionloop.bin.converters.conversion import ConversionReport
from visionloop.datasets.detection.annotation_files import find_annotations
from visionloop.datasets.detection.index import DetectionIndex
from visionloop.datasets.detection.layout import inspect_detection_split
from visionloop.datasets.io.layout import DataLayoutError

SPLITS = ("train", "val", "test")


def read_yolo_splits(source: str, report: ConversionReport) -> dict[str, DetectionIndex]:
    """Read a YOLO folder in the same way as training.

    Args:
        source: folder with data.yaml, images/ and labels/.
        report: receives images that cannot be read and lines that are not boxes; the index is
            without them.

    Returns:
        {split: DetectionIndex}.

    Raises:
        DataLayoutError: for a folder that is laid out otherwise.
    """
    splits: dict[str, DetectionIndex] = {}
    for split in SPLITS:
        description = find_annotations(source, split)
        if description is None:
            continue
        if description.suffix == ".json":
            raise DataLayoutError(description, "is COCO json already, not YOLO")
        inspected = inspect_detection_split(source, split)
        assert inspected is not None, f"{description} describes no {split}"
        index, problems = inspected
        for kind, path, why in problems:
            if kind == "error":
                report.add_problem(path, why)
            else:
                report.add_note(path, f"{split}: {why}")
        if index is not None:
            splits[split] = index
    if not splits and not report.problems:
        why = "no YOLO data in it; expected data.yaml with names, train and val"
        raise DataLayoutError(source, why)
    return splits
