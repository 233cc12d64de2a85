"""Sample data of segmentation: shapes on a ground class, with a mask of class ids for each image.

Every image and its mask are a function of (seed, split, number) only. The data is easy on purpose:
shapes are brighter than the ground, roughly upright and hardly occlude each other, each kind has
its own hues, and the one other background, a band across the image, is striped, so that a small
network learns them within minutes on a CPU. It also has what code for real data must handle: images
of every size, images without some of the classes, and ignored pixels.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from tqdm import tqdm

from visionloop.datasets.synthetic.scenes import Scene, shaded_patch
from visionloop.datasets.synthetic.shapes import OUTLINES

SPLITS = {"train": 300, "val": 60}  # images
SIDES = (96, 160)  # shortest and longest side in pixels, height and width drawn independently
CLASSES = ("ground", "band", *sorted(OUTLINES))  # the id is the position
GROUND, BAND, IGNORED = 0, 1, 255
# of the classes in the masks
COLORS = (
    (96, 96, 96),
    (148, 96, 60),
    (214, 62, 62),
    (56, 190, 190),
    (150, 206, 56),
    (142, 84, 214),
)
# approximate hues of these colors
HUES = dict(zip(sorted(OUTLINES), (0.0, 0.5, 0.25, 0.75), strict=True))
SHAPES = (3, 6)  # fewest and most shapes
RADII = (0.16, 0.26)  # of the circumscribed circle, relative to the shorter side
SMALL_RADIUS = 0.13  # of a shape for which there is no other room
MAX_ROTATION = np.pi / 6  # to either side
BAND_SHARE = 0.5  # of the images have a band
BAND_WIDTHS = (0.2, 0.32)  # relative to the shorter side
# width in pixels, and brightness of every other stripe above the one before, on a scale of 255
STRIPE, STRIPE_STEP = 6, 75
# share of shapes with ignored pixels around them, and their largest width in pixels
BORDER_SHARE, MAX_BORDER = 0.5, 2


def write_segmentation(
    folder: Path,
    seed: int,
    images: Mapping[str, int] = SPLITS,
    sides: tuple[int, int] = SIDES,
) -> None:
    """Write `images/train/0000.jpg`, `masks/train/0000.png`, the same for val, and `classes.json`.

    folder: an empty folder; images: {split: number of images}; sides: shortest and longest side in
    pixels. The masks are palette PNG: uint8 class ids, 255 is ignored.
    """
    content = {
        "classes": CLASSES,
        "ignore_index": IGNORED,
        "colors": dict(zip(CLASSES, COLORS, strict=True)),
    }
    (folder / "classes.json").write_text(json.dumps(content) + "\n")
    with tqdm(total=sum(images.values()), desc="sample data", unit="image", disable=None) as bar:
        for split_number, (split, count) in enumerate(images.items()):
            for kind in ("images", "masks"):
                (folder / kind / split).mkdir(parents=True)
            for number in range(count):
                image, ids = draw_scene(np.random.default_rng([seed, split_number, number]), sides)
                Image.fromarray(image).save(
                    folder / "images" / split / f"{number:04}.jpg", quality=90
                )
                _with_palette(ids).save(folder / "masks" / split / f"{number:04}.png")
                bar.update()


def _with_palette(ids: NDArray[np.uint8]) -> Image.Image:
    """Return the mask as an image whose pixels are the ids and which viewers show in colors."""
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[: len(COLORS)], palette[IGNORED] = COLORS, 255
    image = Image.fromarray(ids)
    image.putpalette(palette.tobytes())
    return image


def draw_scene(
    generator: np.random.Generator, sides: tuple[int, int] = SIDES
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw a texture with shapes on it and, in some images, a band below them.

    Returns (image uint8 [H, W, 3], class ids uint8 [H, W], 255 is ignored).
    """
    height, width = (int(side) for side in generator.integers(*sides, size=2, endpoint=True))
    ground = shaded_patch(generator, height, width)
    ids = np.full((height, width), GROUND, dtype=np.uint8)
    if generator.random() < BAND_SHARE:
        add_band(generator, ground, ids)
    scene = Scene(ground)
    for _ in range(generator.integers(*SHAPES, endpoint=True)):
        add_shape(generator, scene, ids)
    return scene.image(), ids


def add_band(
    generator: np.random.Generator, ground: NDArray[np.float64], ids: NDArray[np.uint8]
) -> None:
    """Draw a straight striped band of another texture into `ground` and `ids`, in place."""
    height, width = ids.shape
    shorter = min(height, width)
    angle = generator.uniform(0, np.pi)
    center_x, center_y = generator.uniform(0.3, 0.7, 2) * (width, height)
    half_width = generator.uniform(*BAND_WIDTHS) * shorter / 2
    y, x = np.mgrid[:height, :width] - np.array([center_y, center_x])[:, None, None] + 0.5
    along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    inside = np.abs(across) <= half_width
    band = shaded_patch(generator, height, width) + STRIPE_STEP * (along // STRIPE % 2)[..., None]
    ground[inside] = band[inside]
    ids[inside] = BAND


def add_shape(generator: np.random.Generator, scene: Scene, ids: NDArray[np.uint8]) -> None:
    """Draw a shape of a random kind, size and rotation into `scene` and `ids`, in place.

    It is small if no other fits, and left out if the image is full.
    """
    kind = sorted(OUTLINES)[generator.integers(len(OUTLINES))]
    for share in (generator.uniform(*RADII), SMALL_RADIUS):
        center_xy = scene.find_room(generator, share * scene.shorter)
        if center_xy is not None:
            break
    else:
        return
    window, cover = scene.paint(
        generator, kind, center_xy, share * scene.shorter, MAX_ROTATION, HUES[kind]
    )
    inside = cover >= 0.5
    ids[window][random_border(generator, inside)] = IGNORED
    ids[window][inside] = CLASSES.index(kind)


def random_border(generator: np.random.Generator, inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return a shape's pixels with a border of 1 or 2 pixels, or nothing for half of the shapes.

    inside: bool [H, W], the pixels of the shape.
    """
    if generator.random() >= BORDER_SHARE:
        return np.zeros_like(inside)
    border = int(generator.integers(1, MAX_BORDER, endpoint=True))
    image = Image.fromarray(inside.astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.MaxFilter(2 * border + 1))).astype(np.bool_)
