"""Small sources for the converters, and the readers of what these write."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from visionloop.bin.converters.voc_masks import voc_colors
from visionloop.datasets.detection.index import read_coco
from visionloop.datasets.detection.layout import find_detection_split
from visionloop.datasets.segmentation.class_file import read_class_file
from visionloop.datasets.segmentation.masks import read_mask

BCCD = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "bccd"
HEIGHT, WIDTH = 6, 8  # of the images with masks


def image(path, height=HEIGHT, width=WIDTH):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), 90, dtype=np.uint8)).save(path)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def files_below(folder):
    return sorted(
        path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if not path.is_dir()
    )


# Boxes


def voc_object(name, corners, difficult=0, extra=""):
    tags = ("xmin", "ymin", "xmax", "ymax")
    box = "".join(f"<{tag}>{value}</{tag}>" for tag, value in zip(tags, corners, strict=True))
    return (
        f"<object><name>{name}</name><difficult>{difficult}</difficult>"
        f"<bndbox>{box}</bndbox>{extra}</object>"
    )


def voc_image(root, stem, objects, size_hw=(60, 80), stated_hw=None):
    """One image with its xml. objects: rows of arguments of voc_object."""
    image(root / "JPEGImages" / f"{stem}.jpg", *size_hw)
    height, width = stated_hw or size_hw
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    content = size + "".join(voc_object(*row) for row in objects)
    write(
        root / "Annotations" / f"{stem}.xml",
        f"<annotation><filename>{stem}.jpg</filename>{content}</annotation>",
    )


def small_voc(root):
    """A VOC folder: two training images, one of validation, one of test."""
    voc_image(root, "a", [("dog", (1, 1, 80, 60)), ("cat", (11, 21, 20, 40), 1)])
    voc_image(root, "b", [])
    voc_image(root, "c", [("dog", (5.5, 6, 9, 10))], size_hw=(40, 30))
    voc_image(root, "d", [("bird", (2, 3, 2, 3))])
    lists = {"train": "a\nb\n", "val": "c\n", "test": "d", "trainval": "a\nb\nc\n"}
    for split, stems in lists.items():
        write(root / "ImageSets" / "Main" / f"{split}.txt", stems)
    return root


def few_cells(count=6):
    """The DetectionIndex of a few real images."""
    if not BCCD.is_dir():
        pytest.skip("no bccd beside the repository")
    return read_coco(BCCD / "val.json", BCCD / "val").subset(range(count))


def rows_of(index, i):
    """[(class name, box, crowd)] of image i."""
    boxes, labels, crowd, _ = index.boxes_of(i)
    return [
        (index.classes[label], *box, bool(each))
        for box, label, each in zip(boxes.tolist(), labels, crowd, strict=True)
    ]


def read_split(folder, split, classes=None):
    """The DetectionIndex of a split whose images all exist."""
    index = find_detection_split(folder, split, classes)
    assert [Path(index.path(i)).is_file() for i in range(len(index))] == [True] * len(index)
    return index


def names(index):
    return [index.name(i) for i in range(len(index))]


# Masks


def box(left, top, right, bottom):
    """The polygon around the pixels left..right - 1 and top..bottom - 1."""
    return [left, top, right, top, right, bottom, left, bottom]


def grid(*lines):
    """A mask as text: a digit for an id, x for ignored."""
    return [[255 if value == "x" else int(value) for value in line] for line in lines]


def mask(folder, name):
    """The ids in a mask file, which are those that training reads."""
    path = Path(folder) / "masks" / name
    with Image.open(path) as image:
        assert image.mode == "L"
        ids = np.asarray(image)
    assert (read_mask(path, read_class_file(Path(folder) / "classes.json")).numpy() == ids).all()
    return ids.tolist()


def classes(folder):
    return json.loads((Path(folder) / "classes.json").read_text())["classes"]


def coco(root, annotations, split="train", images=("a.jpg",), categories=("dog", "cat")):
    """One json. annotations: (category id, segmentation) or dicts; category ids are 3, 6, ..."""
    for name in images:
        image(root / split / name)
    rows = []
    for number, row in enumerate(annotations, 1):
        row = row if isinstance(row, dict) else {"category_id": row[0], "segmentation": row[1]}
        rows.append({"id": number, "image_id": 1, "iscrowd": 0} | row)
    content = {
        "images": [
            {"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH}
            for number, name in enumerate(images, 1)
        ],
        "annotations": rows,
        "categories": [
            {"id": 3 * number, "name": name} for number, name in enumerate(categories, 1)
        ],
    }
    return write(root / f"{split}.json", content)


def labelme(root, name, drawn, **more):
    """An image with its json. drawn: (label, kind, points)."""
    image((root / name).with_suffix(".jpg"))
    rows = [
        {"label": label, "shape_type": kind, "points": points, "group_id": None, "flags": {}}
        for label, kind, points in drawn
    ]
    content = {
        "version": "5.4.1",
        "flags": {},
        "shapes": rows,
        "imagePath": f"{Path(name).stem}.jpg",
        "imageData": None,
    }
    return write(
        (root / name).with_suffix(".json"),
        content | {"imageHeight": HEIGHT, "imageWidth": WIDTH} | more,
    )


def colored_mask(path, *lines):
    """An RGB mask. lines: a digit for each pixel, of VOC's colors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [[int(value) for value in line] for line in lines]
    Image.fromarray(np.array(voc_colors(10), dtype=np.uint8)[rows]).save(path)
