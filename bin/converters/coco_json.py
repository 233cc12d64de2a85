"""Writer of a DetectionIndex as COCO json, one image or box per line."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TextIO

from visionloop.bin.converters.conversion import ConversionReport, OutputFormat
from visionloop.datasets.detection.index import DetectionIndex


def write_coco(path: Path, index: DetectionIndex) -> None:
    """Write the json of an index, row by row.

    Names, boxes, areas and ids are those of the index, digit by digit; annotations are numbered
    from 1, because pycocotools takes an id of 0 for none.
    """
    with open(path, "w", encoding="ascii") as file:
        file.write('{"categories": ')
        write_list(file, _categories(index))
        file.write(',\n"images": ')
        write_list(file, _images(index))
        file.write(',\n"annotations": ')
        write_list(file, _annotations(index))
        file.write("}\n")


def _categories(index: DetectionIndex) -> Iterator[Mapping[str, object]]:
    """Yield the categories in order of label."""
    for category_id, name in zip(index.category_ids, index.classes, strict=True):
        yield {"id": category_id, "name": name}


def _images(index: DetectionIndex) -> Iterator[Mapping[str, object]]:
    """Yield the images in order."""
    for i, image_id in enumerate(index.image_ids):
        height, width = index.sizes_hw[i].tolist()
        yield {"id": image_id.item(), "file_name": index.name(i), "width": width, "height": height}


def _annotations(index: DetectionIndex) -> Iterator[Mapping[str, object]]:
    """Yield the boxes, image by image."""
    number = 0
    for i, image_id in enumerate(index.image_ids):
        # converted to Python numbers image by image: all at once would need much memory
        boxes, labels, crowds, areas = (column.tolist() for column in index.boxes_of(i))
        for box, label, crowd, area in zip(boxes, labels, crowds, areas, strict=True):
            number += 1
            yield {
                "id": number,
                "image_id": image_id.item(),
                "category_id": index.category_ids[label],
                "bbox": box,
                "area": area,
                "iscrowd": int(crowd),
            }


def write_list(file: TextIO, rows: Iterable[Mapping[str, object]]) -> None:
    """Write a json list with a line for each row."""
    file.write("[")
    for number, row in enumerate(rows):
        file.write(",\n" if number else "\n")
        file.write(json.dumps(row, separators=(",", ":")))  # `dump` does not use the C encoder
    file.write("]")


def write_jsons(
    splits: dict[str, DetectionIndex], folder: Path, report: ConversionReport
) -> dict[str, DetectionIndex]:
    """Write `<split>.json` for each split and return all of them; nothing is left out."""
    for split, index in splits.items():
        write_coco(folder / f"{split}.json", index)
    return splits


def count_boxes(index: DetectionIndex) -> int:
    """Return the number of boxes."""
    return len(index.boxes)


BOXES = OutputFormat(
    write_annotations=write_jsons, count=count_boxes, one="box", many="boxes", task="detection"
)
