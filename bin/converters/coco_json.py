"""The COCO json of a DetectionIndex, one image or box a line."""

import json

from visionloop.bin.converters.conversion import Form


def write_coco(path, index):
    """Write the json of an index, row by row.

    Names, boxes, areas and ids are those of the index, digit by digit; annotations are numbered
    from 1, because pycocotools takes an id of 0 for none.
    """
    with open(path, "w", encoding="ascii") as file:
        file.write('{"categories": ')
        _write_list(file, _categories(index))
        file.write(',\n"images": ')
        _write_list(file, _images(index))
        file.write(',\n"annotations": ')
        _write_list(file, _annotations(index))
        file.write("}\n")


def _categories(index):
    for category_id, kind in zip(index.category_ids, index.classes, strict=True):
        yield {"id": category_id, "name": kind}


def _images(index):
    for i, image_id in enumerate(index.image_ids):
        height, width = index.sizes_hw[i].tolist()
        yield {"id": image_id.item(), "file_name": index.name(i), "width": width, "height": height}


def _annotations(index):
    number = 0
    for i, image_id in enumerate(index.image_ids):
        # to Python's numbers image by image: all at once would not be small for a moment
        for box, label, crowd, area in zip(
            *(column.tolist() for column in index.boxes_of(i)), strict=True
        ):
            number += 1
            row = {
                "id": number,
                "image_id": image_id.item(),
                "category_id": index.category_ids[label],
            }
            yield row | {"bbox": box, "area": area, "iscrowd": int(crowd)}


def _write_list(file, rows):
    file.write("[")
    for number, row in enumerate(rows):
        file.write(",\n" if number else "\n")
        file.write(json.dumps(row, separators=(",", ":")))  # `dump` goes without the C encoder
    file.write("]")


def write_jsons(splits, folder, findings):
    """`<split>.json` for each DetectionIndex; nothing is left out."""
    for split, index in splits.items():
        write_coco(folder / f"{split}.json", index)
    return splits


BOXES = Form(annotate=write_jsons, count=lambda index: len(index.boxes), one="box", many="boxes")
