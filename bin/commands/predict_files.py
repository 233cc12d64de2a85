"""The files of answered images: lines, images in the format of their names, contact sheets."""

import itertools
import json
import os
from collections import Counter

import numpy as np
from PIL import Image

from visionloop.tasks.drawing.canvas import fit_to, grid

LINES = "predictions.jsonl"
SHEET = "contact_sheet.png"
SHEET_MOST = 100  # images on the contact sheet


class PredictionWriter:
    """The rows of a predictions.jsonl, without those of unreadable images. Read anew at each pass: a million of them need no memory."""

    def __init__(self, path):
        self.path = path

    def __iter__(self):
        with open(self.path) as lines:
            yield from (row for row in map(json.loads, lines) if "error" not in row)


class ImageFiles:
    """The images of answers, written into a folder: a folder in it for each kind. names: of all files."""

    def __init__(self, folder, names):
        self.folder = folder
        self.pngs = PngNames(names)

    def write(self, answers):
        """answers: of engine/predict.py. An image that is there, of a start that was cut short, is written again."""
        for kind, images in answers.made.items():
            for name, image in zip(answers.names, images, strict=True):
                save_image(self.folder / kind / self.pngs.of(name), image)
        for kind, images in answers.drawn.items():
            for name, image in zip(answers.names, images, strict=True):
                save_image(self.folder / kind / name, image)


class PngNames:
    """The names with .png in the place of their suffix, or behind it where another file would have the same name."""

    def __init__(self, names):
        count = Counter(os.path.splitext(name)[0] for name in names)
        count.update(names)  # a.jpg.jpg beside a.jpg and a.png
        self.shared = {stem for stem, files in count.items() if files > 1}

    def of(self, name):
        stem = os.path.splitext(name)[0]
        return (name if stem in self.shared else stem) + ".png"


def save_image(path, image):
    """In the format that the suffix names. image: uint8 array [H, W] or [H, W, 3], or a Pillow image with what its `info` holds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pil_image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    exif = (
        {"exif": pil_image.info["exif"]} if "exif" in pil_image.info else {}
    )  # unlike the ICC profile, Pillow takes it as an argument alone
    pil_image.save(path, **exif)


def write_sheets(folder, kinds, side):
    """contact_sheet.png of images/ and <kind>_sheet.png of the others: the first hundred of each as they were written, `side` px."""
    first = [row["file"] for row in itertools.islice(PredictionWriter(folder / LINES), SHEET_MOST)]
    for kind in kinds if first else ():
        small = [
            fit_to(np.asarray(Image.open(folder / kind / name).convert("RGB")), longest=side)
            for name in first
        ]
        Image.fromarray(grid(small)).save(
            folder / (SHEET if kind == "images" else f"{kind}_sheet.png")
        )
