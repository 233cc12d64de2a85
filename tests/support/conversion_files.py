"""Small sources for the converters, and the readers of what these write."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from visionloop.bin.converters.voc_masks import voc_colors
from visionloop.datasets.detection.index import read_coco
from visionloop.datasets.detection.layout import find_detection_split
from visionloop.datasets.segmentation.class_file import read_class_file
from visionloop.datasets.segmentation.masks import read_mask
from visionloop.datasets.segments.layout import require_segments_split
from visionloop.datasets.segments.reading import read_segments

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


# Objects and stuff


def decode(segmentation, height=HEIGHT, width=WIDTH):
    """The pixels of a COCO segmentation, bool [H, W]."""
    runs = segmentation
    if isinstance(segmentation, list):
        runs = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    return coco_mask.decode(runs).astype(bool)


def objects_of(folder, split="train"):
    """{image: [(class name, crowd, pixels bool [H, W])]} of a written instances json.

    Area and box are those of the pixels, ids are unique, and detection reads the same file.
    """
    content = json.loads((Path(folder) / f"{split}.json").read_text())
    read_split(folder, split)
    name_of = {category["id"]: category["name"] for category in content["categories"]}
    images = {each["id"]: each for each in content["images"]}
    objects = {each["file_name"]: [] for each in content["images"]}
    assert len({row["id"] for row in content["annotations"]}) == len(content["annotations"])
    for row in content["annotations"]:
        each = images[row["image_id"]]
        pixels = decode(row["segmentation"], each["height"], each["width"])
        assert (row["area"], row["bbox"]) == (pixels.sum(), box_around(pixels))
        name = name_of[row["category_id"]]
        objects[each["file_name"]].append((name, bool(row["iscrowd"]), pixels))
    if content["annotations"]:
        assert sorted_rows(objects) == sorted_rows(read_for_training(folder, split, "instance"))
    return objects


def read_for_training(folder, split, kind):
    """{image: [(class name, crowd, pixels bool [H, W])]} as the datasets read them."""
    index = require_segments_split(folder, split, kind)
    segments = {}
    for i in range(len(index)):
        pixel_values, _, _, _, truth = read_segments(index, i)
        height, width = pixel_values.shape[1:]
        if kind == "instance":
            runs = [{"size": [height, width], "counts": counts} for counts in truth["rles"]]
            masks = [coco_mask.decode(each).astype(bool) for each in runs]
        else:
            numbers = truth["segment_map"].numpy()
            masks = [numbers == k + 1 for k in range(len(truth["labels"]))]
        assert truth["areas"].tolist() == [pixels.sum() for pixels in masks]
        names = [index.classes[label] for label in truth["labels"]]
        rows = zip(names, truth["crowd"].tolist(), masks, strict=True)
        segments[index.name(i)] = list(rows)
    return segments


def sorted_rows(segments):
    """Segments in an order that does not depend on that of a file."""
    return {
        name: sorted((label, crowd, pixels.tobytes()) for label, crowd, pixels in rows)
        for name, rows in segments.items()
    }


def box_around(pixels):
    """[x, y, width, height] around the true pixels."""
    ys, xs = np.nonzero(pixels)
    return [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]


def segments_of(folder, split="train"):
    """{image: [(class name, crowd, pixels bool [H, W])]} of written panoptic data.

    Area and box are those of the pixels, and every id of the PNG has an entry.
    """
    content = json.loads((Path(folder) / f"panoptic_{split}.json").read_text())
    name_of = {category["id"]: category["name"] for category in content["categories"]}
    images = {each["id"]: each for each in content["images"]}
    segments = {}
    for row in content["annotations"]:
        each = images[row["image_id"]]
        assert (Path(folder) / split / each["file_name"]).is_file()
        ids = segment_ids(Path(folder) / f"panoptic_{split}" / row["file_name"])
        assert ids.shape == (each["height"], each["width"])
        infos = row["segments_info"]
        assert {*np.unique(ids).tolist()} - {0} == {info["id"] for info in infos}
        segments[each["file_name"]] = []
        for info in infos:
            pixels = ids == info["id"]
            assert (info["area"], info["bbox"]) == (pixels.sum(), box_around(pixels))
            row = name_of[info["category_id"]], bool(info["iscrowd"]), pixels
            segments[each["file_name"]].append(row)
    assert len(segments) == len(images)
    assert sorted_rows(segments) == sorted_rows(read_for_training(folder, split, "panoptic"))
    return segments


def segment_ids(path):
    """The ids in a PNG of COCO panoptic data, int64 [H, W]."""
    with Image.open(path) as image:
        assert image.mode == "RGB"
        return np.asarray(image).astype(np.int64) @ [1, 256, 65536]


def drawing(segments):
    """Segments as text, {image: (names by number, grid of numbers)}; later ones are on top."""
    grids = {}
    for name, rows in segments.items():
        ids = np.zeros(rows[0][2].shape if rows else (HEIGHT, WIDTH), dtype=int)
        for number, (_, _, pixels) in enumerate(rows, 1):
            ids[pixels] = number
        classes = [label + ("*" if crowd else "") for label, crowd, _ in rows]
        grids[name] = classes, ["".join(map(str, line)) for line in ids.tolist()]
    return grids


def panoptic(root, lines, infos, categories, split="train", name="a.jpg"):
    """One image of COCO panoptic data. lines: digits, an id times 1000; infos: rows by digit."""
    ids = 1000 * np.array([[int(digit) for digit in line] for line in lines])
    image(root / split / name, *ids.shape)
    png = root / f"panoptic_{split}" / Path(name).with_suffix(".png").name
    png.parent.mkdir(parents=True, exist_ok=True)
    channels = [ids & 255, ids >> 8 & 255, ids >> 16]
    Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8)).save(png)
    rows = [
        {"id": 1000 * digit, "category_id": category, "iscrowd": crowd, "area": 1, "bbox": [0] * 4}
        for digit, category, crowd in infos
    ]
    content = {
        "images": [{"id": 7, "file_name": name, "height": ids.shape[0], "width": ids.shape[1]}],
        "annotations": [{"image_id": 7, "file_name": png.name, "segments_info": rows}],
        "categories": categories,
    }
    return write(root / f"panoptic_{split}.json", content)


def colored_mask(path, *lines):
    """An RGB mask. lines: a digit for each pixel, of VOC's colors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [[int(value) for value in line] for line in lines]
    Image.fromarray(np.array(voc_colors(10), dtype=np.uint8)[rows]).save(path)
