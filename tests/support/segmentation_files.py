"""Small datasets with masks, written in the form that segmentation reads."""

import json

import numpy as np
from PIL import Image


def write_pair(folder, split, name, ids, image=None, suffix=".png"):
    """`images/<split>/<name>` and its mask. ids: uint8 [H, W] as the file is to hold them; image: uint8 [H, W, 3], None: noise."""
    image_path, mask_path = (
        folder / "images" / split / f"{name}{suffix}",
        folder / "masks" / split / f"{name}.png",
    )
    for path in (image_path, mask_path):
        path.parent.mkdir(parents=True, exist_ok=True)
    if image is None:
        image = np.random.default_rng([len(split), *name.encode()]).integers(
            0, 256, (*ids.shape, 3), dtype=np.uint8
        )
    Image.fromarray(image).save(image_path)
    Image.fromarray(ids).save(mask_path)
    return image_path, mask_path


def write_segmentation_data(folder, images=12, classes=("sky", "road", "car"), **more):
    """train and val of `images` each, 20 x 24 px (height x width), every class and some ignored pixels in each mask; the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "classes.json").write_text(json.dumps({"classes": list(classes)} | more))
    ids = np.zeros((20, 24), dtype=np.uint8)
    for label in range(len(classes)):
        ids[6 * label : 6 * label + 6] = label
    ids[-2:] = 255
    for split in ("train", "val"):
        for number in range(images):
            write_pair(folder, split, f"{split}{number:02}", np.roll(ids, number, axis=1))
    return folder
