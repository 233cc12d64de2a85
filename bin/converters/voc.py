"""Reader of Pascal VOC's boxes, an xml for each image."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from visionloop.bin.converters.columns import DetectionIndexBuilder
from visionloop.bin.converters.conversion import ConversionReport
from visionloop.bin.converters.voc_layout import VocFiles, find_voc_splits, image_problem
from visionloop.bin.converters.voc_xml import InvalidAnnotation, VocAnnotation, read_voc_xml
from visionloop.datasets.detection.index import DetectionIndex
from visionloop.datasets.io.images import UnreadableImage, read_size
from visionloop.engine.data.subsets import hash_split
from visionloop.engine.errors import UserError


def read_voc(
    source: str, report: ConversionReport, *, difficult: str, val_split: float
) -> dict[str, DetectionIndex]:
    """Read a VOC folder, or the only VOC folder below `source`; see find_voc_splits.

    Args:
        source: folder.
        report: receives annotations that cannot be used, and those that were left out or clipped.
        difficult: "keep" objects marked difficult, mark them as "crowd", or "drop" them.
        val_split: fraction of train that becomes val, in 0..1; only without a list of val.

    Returns:
        {split: DetectionIndex}.

    Raises:
        DataLayoutError: for a folder that is laid out otherwise.
        UserError: for a val split that exists already.
    """
    splits, are_listed = find_voc_splits(source)
    if val_split and "val" in splits:
        why = f"--val-split: {source} has a val {'list' if are_listed else 'folder'} already"
        raise UserError(why, field="val_split", file=source)
    if not are_listed:
        for files in splits.values():
            for path in files.unannotated():
                report.add_note(path, "image without annotations, left out")
    if val_split and "train" in splits:
        whole = splits["train"]
        for split, rows in zip(
            ("train", "val"), hash_split(whole.stems, None, val_split), strict=True
        ):
            splits[split] = replace(whole, stems=[whole.stems[i] for i in rows])
    reader = _Reader(report, difficult)
    total = sum(len(files.stems) for files in splits.values())
    with tqdm(
        total=total, desc="reading annotations", unit="xml", disable=None, leave=False
    ) as progress:
        for split, files in splits.items():
            for stem in files.stems:
                reader.add(split, files, stem)
                progress.update()
    return {split: builder.build() for split, builder in reader.builders.items()}


class _Reader:
    """Reader of annotations, one after the other; those that cannot be used go to the report.

    Attributes:
        builders: {split: DetectionIndexBuilder} of the images read so far.
    """

    def __init__(self, report: ConversionReport, difficult: str) -> None:
        self.report, self.difficult = report, difficult
        self.builders: dict[str, DetectionIndexBuilder] = {}
        self.class_numbers: dict[str, int] = {}

    def add(self, split: str, files: VocFiles, stem: str) -> None:
        """Add one image with its boxes."""
        folder = files.images.folder
        builder = self.builders.setdefault(
            split, DetectionIndexBuilder(files.annotations, folder, self.class_numbers)
        )
        xml = files.annotations / (files.finder.find(f"{stem}.xml") or f"{stem}.xml")
        images = files.images.find(stem)
        try:
            annotation = read_voc_xml(xml)
            if why := image_problem(images, folder):
                raise InvalidAnnotation(why)
            size_hw = read_size(folder / images[0])
            if annotation.size_hw not in (None, size_hw):
                stated, real = ("{1} x {0}".format(*size) for size in (annotation.size_hw, size_hw))
                raise InvalidAnnotation(
                    f"<size> is {stated}, but {folder.name}/{images[0]} is {real} "
                    "(width x height, upright)"
                )
        except UnreadableImage as error:
            self.report.add_problem(error.path, error.why)
        except InvalidAnnotation as error:
            self.report.add_problem(xml, str(error))
        except OSError as error:
            self.report.add_problem(xml, f"{error.strerror} (listed for {split})")
        else:
            builder.add(images[0], size_hw, *self.select_objects(annotation, size_hw, xml))

    def select_objects(
        self, annotation: VocAnnotation, size_hw: tuple[int, int], xml: Path
    ) -> tuple[NDArray[np.float64], list[str], list[bool]]:
        """Return (boxes [G, 4] xywh, class names, crowd) of the objects to convert."""
        boxes, inside = annotation.boxes_in(*size_hw)
        exchanged = annotation.exchanged()
        selected = []
        for i, (box, is_difficult) in enumerate(zip(boxes, annotation.difficult, strict=True)):
            place = f"{xml}: object {i + 1} ({annotation.class_names[i]})"
            if exchanged[i]:
                self.report.add_note(place, "corners are exchanged (min above max), put in order")
            if box[2:].min() <= 0:
                self.report.add_note(place, "empty box, left out")
                continue
            if is_difficult and self.difficult == "drop":
                self.report.add_note(place, "difficult, left out")
                continue
            if not inside[i]:
                self.report.add_note(place, "box reaches beyond the image, clipped")
            selected.append(i)
        crowd = [annotation.difficult[i] and self.difficult == "crowd" for i in selected]
        return boxes[selected], [annotation.class_names[i] for i in selected], crowd
