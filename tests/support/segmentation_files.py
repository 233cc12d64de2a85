"""Small datasets of images with masks, in the layout of segmentation."""

import json

import numpy as np
from PIL import Image


def write_pair(folder, split, name, ids, image=None, suffix=".png"):
    """Write `images/<split>/<name>` and its mask; return both paths.

    ids: uint8 [H, W], the values of the mask file; image: uint8 [H, W, 3], None: noise.
    """
    image_path = folder / "images" / split / f"{name}{suffix}"
    mask_path = folder / "masks" / split / f"{name}.png"
    for path in (image_path, mask_path):
        path.parent.mkdir(parents=True, exist_ok=True)
    if image is None:
        generator = np.random.default_rng([len(split), *name.encode()])
        image = generator.integers(0, 256, (*ids.shape, 3), dtype=np.uint8)
    Image.fromarray(image).save(image_path)
    Image.fromarray(ids).save(mask_path)
    return image_path, mask_path


def write_segmentation_data(folder, images=12, classes=("sky", "road", "car"), **class_file):
    """Write train and val of `images` each, 20 x 24 px (height x width); return the folder.

    Every mask has all classes and some ignored pixels. class_file: further keys of classes.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "classes.json").write_text(json.dumps({"classes": list(classes)} | class_file))
    ids = np.zeros((20, 24), dtype=np.uint8)
    for label in range(len(classes)):
        ids[6 * label : 6 * label + 6] = label
    ids[-2:] = 255
    for split in ("train", "val"):
        for number in range(images):
            write_pair(folder, split, f"{split}{number:02}", np.roll(ids, number, axis=1))
    return folder
