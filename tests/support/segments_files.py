"""Small datasets of images with segments, in the forms that instance and panoptic tasks read."""

import json

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask


def rectangle(left, top, width, height):
    """The polygon of a rectangle."""
    right, bottom = left + width, top + height
    return [left, top, right, top, right, bottom, left, bottom]


def encode(mask):
    """A mask bool [H, W] as COCO's compressed encoding in json."""
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": rle["counts"].decode()}


def run_lengths(mask):
    """A mask bool [H, W] as COCO's uncompressed encoding in json."""
    flat = np.concatenate([[0], mask.T.ravel().astype(int), [2]])
    ends = np.flatnonzero(np.diff(flat))
    counts = np.diff(np.concatenate([[0], ends])).tolist()
    counts = counts if not flat[1] else [0, *counts[1:]] if counts[0] == 0 else [0, *counts]
    return {"size": list(mask.shape), "counts": counts}


def small_instances():
    """A COCO json of instances: three images (the last without any), two classes.

    In the first image two rectangles overlap, and there is a crowd; the second has a run-length
    encoding of each kind.
    """
    crowd = np.zeros((30, 40), dtype=bool)
    crowd[20:, 30:] = True
    one, other = np.zeros((2, 24, 20), dtype=bool)
    one[2:10, 3:9], other[12:20, 4:18] = True, True
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "width": 40, "height": 30},
            {"id": 3, "file_name": "b.png", "width": 20, "height": 24},
            {"id": 5, "file_name": "c.png", "width": 16, "height": 16},
        ],
        "categories": [{"id": 9, "name": "dog"}, {"id": 2, "name": "cat"}],
        "annotations": [
            annotation(1, 3, 9, encode(one), area=48),
            annotation(2, 7, 2, [rectangle(2, 3, 10, 8)]),
            annotation(3, 7, 9, [rectangle(8, 5, 12, 10), rectangle(25, 2, 5, 5)], area=145.0),
            annotation(4, 7, 9, run_lengths(crowd), iscrowd=1, area=100),
            annotation(5, 3, 2, run_lengths(other)),
        ],
    }


def annotation(key, image_id, category_id, segmentation, **more):
    """An entry of a json of instances, with a box as COCO has it."""
    return {
        "id": key,
        "image_id": image_id,
        "category_id": category_id,
        "segmentation": segmentation,
        "bbox": [0, 0, 1, 1],
    } | more


def write_images(folder, content):
    """Write the images of a json's content, each of its own size and gray."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(content["images"]):
        pixels = np.full((image["height"], image["width"], 3), 30 + 30 * number, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / image["file_name"])


def write_instances(folder, content=None, json_name="train.json", images="train"):
    """Write a json of instances with its images; return the path of the json."""
    content = content or small_instances()
    write_images(folder / images, content)
    path = folder / json_name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def small_panoptic():
    """Return (COCO panoptic json, {file name: ids int [H, W]}).

    Two images: the first with two dogs, grass, a crowd of dogs and void, the second with grass
    alone.
    """
    first, second = np.zeros((30, 40), dtype=int), np.full((24, 20), 7)
    first[:, :30] = 70_000  # grass
    first[2:10, 3:12], first[12:20, 5:9], first[25:, 20:] = 300, 5, 16_000_000
    content = {
        "images": [
            {"id": 1, "file_name": "a.png", "width": 40, "height": 30},
            {"id": 2, "file_name": "b.png", "width": 20, "height": 24},
        ],
        "categories": [
            {"id": 4, "name": "dog", "isthing": 1},
            {"id": 8, "name": "grass", "isthing": 0},
        ],
        "annotations": [
            {
                "image_id": 1,
                "file_name": "a.png",
                "segments_info": [
                    segment_info(300, 4, first),
                    segment_info(70_000, 8, first),
                    segment_info(16_000_000, 4, first, iscrowd=1),
                    segment_info(5, 4, first),
                ],
            },
            {"image_id": 2, "file_name": "b.png", "segments_info": [segment_info(7, 8, second)]},
        ],
    }
    return content, {"a.png": first, "b.png": second}


def segment_info(key, category_id, ids, iscrowd=0):
    """An entry of segments_info, with the area that it has in a map."""
    area = int((ids == key).sum())
    return {"id": key, "category_id": category_id, "area": area, "iscrowd": iscrowd}


def write_ids(path, ids):
    """Write ids [H, W] as COCO's panoptic PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ids = np.asarray(ids)
    channels = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=-1)
    Image.fromarray(channels.astype(np.uint8)).save(path)


def write_panoptic(folder, content=None, maps=None, split="train", base=""):
    """Write a panoptic json with its PNGs and images; return the path of the json."""
    default_content, default_maps = small_panoptic()
    content, maps = content or default_content, maps or default_maps
    write_images(folder / split, content)
    for name, ids in maps.items():
        write_ids(folder / base / f"panoptic_{split}" / name, ids)
    path = folder / base / f"panoptic_{split}.json"
    path.write_text(json.dumps(content))
    return path


def write_class_masks(folder, ids, objects, split="train", name="a", **class_file):
    """Write one image with a mask of class ids and a file of object numbers; return the folder."""
    for kind, values in (("masks", ids), ("instances", objects)):
        path = folder / kind / split / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(path)
    path = folder / "images" / split / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((*ids.shape, 3), dtype=np.uint8)).save(path)
    content = {"classes": ["sky", "car", "dog"], "things": ["car", "dog"]} | class_file
    content = {key: value for key, value in content.items() if value is not None}
    (folder / "classes.json").write_text(json.dumps(content))
    return folder


def write_class_data(folder):
    """Write a val split of two images with masks of classes and of objects."""
    ids, objects = np.zeros((2, 20, 24), dtype=np.uint8)
    ids[2:12, 2:12], ids[14:, 14:], objects[2:12, 2:7], objects[2:8, 7:12] = 1, 2, 1, 2
    objects[14:, 14:] = 1
    write_class_masks(folder, ids, objects, split="val")
    write_class_masks(folder, ids.T.copy(), objects.T.copy(), split="val", name="b")


def masks_of(layers, segments):
    """The mask of every segment of layers [C, H, W], bool [t, H, W]."""
    return layers[segments[:, 0]] == segments[:, 1, None, None]


def decode(rles, height, width):
    """The masks of compressed counts, bool [n, H, W]."""
    decoded = [coco_mask.decode({"size": [height, width], "counts": rle}) for rle in rles]
    return np.array(decoded).reshape(-1, height, width) == 1
