"""Small datasets with boxes, written in the forms that detection reads."""

import json

import numpy as np
from PIL import Image


def small_coco():
    """A COCO json of three images (the last without boxes), two classes and four boxes.

    One of the boxes is a crowd.
    """
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "width": 40, "height": 30},
            {"id": 3, "file_name": "b.png", "width": 20, "height": 24},
            {"id": 5, "file_name": "c.png", "width": 16, "height": 16},
        ],
        "categories": [{"id": 9, "name": "dog"}, {"id": 2, "name": "cat"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 3,
                "category_id": 9,
                "bbox": [1, 2, 10, 12.5],
                "area": 99,
                "iscrowd": 0,
            },
            {"id": 2, "image_id": 7, "category_id": 2, "bbox": [5, 5, 10, 10]},
            {
                "id": 3,
                "image_id": 7,
                "category_id": 9,
                "bbox": [0, 0, 40, 30],
                "area": 1000,
                "iscrowd": 1,
            },
            {"id": 4, "image_id": 3, "category_id": 2, "bbox": [15, 20, 5, 4], "area": 20.0},
        ],
    }


def write_images(folder, content, prefix=""):
    """The images of a json's content, each of its own size and gray."""
    for number, image in enumerate(content["images"]):
        path = folder / prefix / image["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(
            np.full((image["height"], image["width"], 3), 30 * number, dtype=np.uint8)
        ).save(path)


def write_coco(folder, content=None, json_name="train.json", images="train"):
    """`folder` / `json_name` with its images in `folder` / `images`; the json's path."""
    content = content or small_coco()
    write_images(folder / images, content)
    (folder / json_name).parent.mkdir(parents=True, exist_ok=True)
    (folder / json_name).write_text(json.dumps(content))
    return folder / json_name
