"""A COCO json taken apart into columns, with everything said that is wrong with it.

100 thousand annotations take about a second, most of it in the json parser. Outlines are thrown
away while it parses: those of COCO's training split would take gigabytes.
"""

import json
import os

import numpy as np

from visionloop.datasets.detection.problems import Report
from visionloop.datasets.io.json_columns import (
    column,
    is_number,
    is_text,
    look_up,
    number_lists,
    numbers,
    repeated,
    show,
    wrong_id,
)
from visionloop.datasets.io.layout import shorten

SECTIONS = ("images", "annotations", "categories")
UNKNOWN, LEFT_OUT = (
    -1,
    -2,
)  # instead of an image's row or a class's label: there is none; it has an error of its own


def read_columns(json_file, classes=None):
    """(columns or None, problems): fields of a DetectionIndex, boxes in the file's order.

    Besides them `names`: paths of the images, list of bytes; `rows`: the image of each box,
    int64 [M]. Entries with an error are left out; None when too little is right to go on.
    """
    report = Report(json_file)
    sections = _read_sections(json_file, report)
    if sections is None:
        return None, report.problems
    categories = read_categories(sections["categories"], classes, report)
    images, row_of = read_images(sections["images"], report)
    if categories is None or not images.get("names"):
        return None, report.problems
    names, category_ids = categories
    label_of = dict.fromkeys(column(sections["categories"], "id"), LEFT_OUT)
    label_of |= {key: label for label, key in enumerate(category_ids) if key is not None}
    annotations = read_annotations(sections["annotations"], row_of, label_of, report)
    return {
        "classes": names,
        "category_ids": category_ids,
        **images,
        **annotations,
    }, report.problems


def _read_sections(json_file, report):
    """{section: list of objects}, or None."""
    try:
        with open(json_file, "rb") as file:
            data = json.loads(file.read(), object_hook=_without_outline)
    except OSError as error:
        return report.error(error.strerror or str(error))
    except UnicodeDecodeError:
        return report.error("not json: not text in UTF-8")
    except (ValueError, RecursionError) as error:
        return report.error(f"not json: {error}")
    if not isinstance(data, dict):
        return report.error(f"holds {show(data)}, expected an object with {', '.join(SECTIONS)}")
    sections = {}
    for name in SECTIONS:
        entries = data.get(name)
        if not isinstance(entries, list):
            report.error(
                f"section {name!r} is {show(entries)}, expected a list"
                if name in data
                else f"no section {name!r}"
            )
            continue
        wrong = [
            (f"{name}: entry {i}", f"is {show(entry)}, not an object")
            for i, entry in enumerate(entries)
            if type(entry) is not dict
        ]
        report.error_each(wrong)
        sections[name] = [entry for entry in entries if type(entry) is dict] if wrong else entries
        if not sections[name] and name != "annotations":
            report.error(f"section {name!r} is empty")
    return sections if len(sections) == len(SECTIONS) else None


def _without_outline(entry):
    entry.pop("segmentation", None)
    return entry


def read_categories(entries, classes, report):
    """(names, ids) in order of label, or None. classes: names of the training split, in whose order the result then is."""
    ids = _read_ids(entries, "category", report)
    if not ids:
        return None
    names = [entry.get("name") for entry in entries]
    nameless = [
        (f"category {key!r}", f"name is {show(name)}")
        for key, name in zip(ids, names, strict=True)
        if not is_text(name)
    ]
    if nameless:
        return report.error_each(nameless)
    report.error_each(
        [
            (f"category {ids[k]!r}", f"another one has the name {names[k]!r} too")
            for k in repeated(names)
        ]
    )
    order = sorted(range(len(ids)), key=ids.__getitem__)
    return match_classes(
        tuple(names[k] for k in order), tuple(ids[k] for k in order), classes, report
    )


def match_classes(names, ids, classes, report):
    """(names, ids) of a split in the order of the training split's `classes`; a class the split does not know has the id None."""
    if classes is None:
        return names, ids
    why = f"not one of the {len(classes)} known classes ({shorten(classes)})"
    report.error_each([(f"category {name!r}", why) for name in names if name not in classes])
    id_of = dict(zip(names, ids, strict=True))
    return tuple(classes), tuple(id_of.get(name) for name in classes)


def read_images(entries, report):
    """({"names", "image_ids", "sizes_hw"}, {image id: row}); ({}, {}) when the ids are wrong."""
    ids = _read_ids(entries, "image", report)
    if not ids:
        return {}, {}
    names, sizes, row_of, wrong_names, wrong_sizes = [], [], {}, [], []
    for key, entry in zip(ids, entries, strict=True):
        name, height, width = entry.get("file_name"), entry.get("height"), entry.get("width")
        name_why, size_why = _wrong_name(name), _wrong_size(height, width)
        if name_why or size_why:
            wrong_names += [(f"image {key!r}", name_why)] if name_why else []
            wrong_sizes += [(f"image {key!r}", size_why)] if size_why else []
            row_of[key] = LEFT_OUT
            continue
        row_of[key] = len(names)
        names.append(os.fsencode(os.path.normpath(name)))
        sizes.append((0, 0) if height is None or width is None else (height, width))
    report.error_each(wrong_names)
    report.error_each(wrong_sizes)
    kept = [key for key in ids if row_of[key] != LEFT_OUT]
    return {
        "names": names,
        "image_ids": np.array(kept),
        "sizes_hw": np.array(sizes, dtype=np.int64).reshape(-1, 2),
    }, row_of


def read_annotations(entries, row_of, label_of, report):
    """{"rows", "labels", "boxes", "crowd", "areas"} of the annotations without error, column by column."""
    image_ids, category_ids = column(entries, "image_id"), column(entries, "category_id")
    rows, labels = look_up(row_of, image_ids), look_up(label_of, category_ids)
    shown = column(entries, "bbox")
    boxes, is_box = number_lists(shown, 4)
    flags = [
        int(flag) if isinstance(flag, bool) else flag for flag in column(entries, "iscrowd", 0)
    ]
    crowd, is_flag = numbers(flags)
    is_flag &= (crowd == 0) | (crowd == 1)
    given = column(entries, "area")
    areas, is_area = numbers(given)
    absent = np.fromiter((area is None for area in given), dtype=bool, count=len(given))
    areas = np.where(absent, boxes[:, 2:].clip(0).prod(axis=1), areas)
    is_area = absent | (is_area & (areas >= 0))

    def complain(wrong, say):
        places = np.flatnonzero(wrong).tolist()
        report.error_each(
            [(_annotation_name(entries[place], place), say(place)) for place in places]
        )

    complain(rows == UNKNOWN, lambda place: f"image_id {show(image_ids[place])} is no image's id")
    complain(
        labels == UNKNOWN,
        lambda place: f"category_id {show(category_ids[place])} is no category's id",
    )
    complain(~is_box, lambda place: f"bbox is {show(shown[place])}, not four finite numbers")
    complain(~is_flag, lambda place: f"iscrowd is {show(flags[place])}, neither 0 nor 1")
    complain(~is_area, lambda place: f"area is {show(given[place])}, not a number of at least 0")
    good = (rows >= 0) & (labels >= 0) & is_box & is_flag & is_area
    columns = {
        "rows": rows,
        "labels": labels.astype(np.int32),
        "boxes": boxes,
        "crowd": crowd == 1,
        "areas": areas,
    }
    return {name: column[good] for name, column in columns.items()}


def _read_ids(entries, kind, report):
    """The ids of a section, or None when they are wrong or of different kinds; repeated ones are told."""
    ids = column(entries, "id")
    wrong = [
        (f"{kind} at position {k}", wrong_id(key)) for k, key in enumerate(ids) if wrong_id(key)
    ]
    if wrong:
        return report.error_each(wrong)
    if len(set(map(type, ids))) > 1:
        texts = [key for key in ids if isinstance(key, str)]
        return report.error(
            f"some {kind} ids are numbers and others text ({shorten([repr(text) for text in texts], 3)})"
        )
    report.error_each(
        [
            (f"{kind} {ids[k]!r}", f"the id is there twice, again at position {k}")
            for k in repeated(ids)
        ]
    )
    return ids


def _wrong_name(name):
    """What is wrong with the file name of an image, or None."""
    if not is_text(name):
        return f"file_name is {show(name)}"
    if os.path.isabs(name):
        return f"file_name {show(name)} is absolute, expected is one below the folder of images"
    if os.path.normpath(name).split(os.sep)[0] in ("..", "."):
        return f"file_name {show(name)} leads out of the folder of images"
    try:
        return "file_name holds a zero byte" if b"\0" in os.fsencode(name) else None
    except UnicodeEncodeError:
        return f"file_name {show(name)} is no text that a file can have for a name"


def _wrong_size(height, width):
    """What is wrong with the size of an image, or None; no size is right."""
    if all(
        side is None or (is_number(side) and 0 < side < 2**31 and side == int(side))
        for side in (height, width)
    ):
        return None
    return f"height is {show(height)} and width {show(width)}, expected are whole numbers above 0"


def _annotation_name(entry, place):
    key = entry.get("id")
    return f"annotation at position {place}" if key is None else f"annotation {show(key)}"
