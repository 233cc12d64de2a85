"""Files of predicted images: lines, images in the format of their names, contact sheets."""

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from visionloop.engine.predict import PredictedBatch
from visionloop.engine.types import JsonObject
from visionloop.tasks.drawing.canvas import fit_to
from visionloop.tasks.drawing.contact_sheet import draw_gallery
from visionloop.tasks.saved_predictions import PngNames

LINES = "predictions.jsonl"
SHEET = "contact_sheet.png"
MAX_SHEET_IMAGES = 100


class PredictionRows:
    """The rows of a predictions.jsonl, without those of unreadable images.

    The file is read again by each iteration: a million rows take no memory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __iter__(self) -> Iterator[JsonObject]:
        with open(self.path) as lines:
            yield from (row for row in map(json.loads, lines) if "error" not in row)


class ImageWriter:
    """Writes the images of predictions into a folder, with one folder in it for each kind.

    names: of all image files that are predicted.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder = folder
        self.png_names = PngNames(names)

    def write(self, predicted: PredictedBatch) -> None:
        """Write the images of a batch; one that a start which was cut short left is replaced."""
        for kind, images in predicted.images.items():
            for name, image in zip(predicted.names, images, strict=True):
                save_image(self.folder / kind / self.png_names.of(name), image)
        for kind, images in predicted.drawn.items():
            for name, image in zip(predicted.names, images, strict=True):
                save_image(self.folder / kind / name, image)


def save_image(path: Path, image: NDArray[np.uint8] | Image.Image) -> None:
    """Write an image in the format that the suffix names.

    image: uint8 array [H, W] or [H, W, 3], or a Pillow image whose `info` is kept.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    pil_image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    # unlike the ICC profile, Pillow takes EXIF as an argument alone
    exif = {"exif": pil_image.info["exif"]} if "exif" in pil_image.info else {}
    pil_image.save(path, **exif)


def write_sheets(folder: Path, kinds: Sequence[str], side: int) -> None:
    """Write contact_sheet.png of images/ and <kind>_sheet.png of each other kind.

    They hold the first hundred images above their names, the longer side of each scaled to `side`
    pixels.
    """
    rows = itertools.islice(PredictionRows(folder / LINES), MAX_SHEET_IMAGES)
    names = [row["file"] for row in rows]
    for kind in kinds if names else ():
        # scaled one by one: a hundred large images would fill the memory
        images = (np.asarray(Image.open(folder / kind / name).convert("RGB")) for name in names)
        tiles = [fit_to(image, longest=side) for image in images]
        sheet = draw_gallery(tiles, [[name] for name in names])
        path = folder / (SHEET if kind == "images" else f"{kind}_sheet.png")
        Image.fromarray(sheet).save(path)
