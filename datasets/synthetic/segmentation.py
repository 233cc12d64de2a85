"""Sample data of segmentation: several shapes on ground that has a class of its own, and a mask of class ids beside each image.

Every image and its mask are a function of (seed, split, number) alone. Kept easy on purpose, like
the other sample data: shapes are brighter than what they lie on, roughly upright and hardly hide
each other, each kind has hues of its own, and the one other ground, a band across the image, is
striped, so that a small network learns them within minutes on a CPU. What real data has and code
trips over is in it too: images of every size, images without some of the classes, and pixels
that count for nothing.
"""

import json

import numpy as np
from PIL import Image, ImageFilter
from tqdm import tqdm

from visionloop.datasets.synthetic.scenes import Scene, shaded_patch
from visionloop.datasets.synthetic.shapes import OUTLINES

SPLITS = {"train": 300, "val": 60}  # images
SIDES = (96, 160)  # pixels, both included, each drawn for itself
CLASSES = ("ground", "band", *sorted(OUTLINES))  # the id is the position
GROUND, BAND, IGNORED = 0, 1, 255
COLOURS = (
    (96, 96, 96),
    (148, 96, 60),
    (214, 62, 62),
    (56, 190, 190),
    (150, 206, 56),
    (142, 84, 214),
)  # of the classes in the masks
HUES = dict(
    zip(sorted(OUTLINES), (0.0, 0.5, 0.25, 0.75), strict=True)
)  # about those of the colours above
SHAPES = (3, 6)  # fewest and most, both included
RADII = (0.16, 0.26)  # of the circle around a shape, as a share of the shorter side
SMALL = 0.13  # of a shape for which no other room was left
LARGEST_TURN = np.pi / 6  # to either side
BAND_SHARE, BAND_WIDTHS = (
    0.5,
    (0.2, 0.32),
)  # images that have a band; its width as a share of the shorter side
STRIPE, STRIPE_STEP = 6, 75  # pixels; of 255, every other stripe above the one before
BORDER_SHARE, WIDEST_BORDER = 0.5, 2  # shapes with pixels around them that are ignored; pixels


def write_segmentation(folder, seed, images=SPLITS, sides=SIDES):
    """Write `images/train/0000.jpg`, `masks/train/0000.png` and the same for val, and `classes.json`.

    folder: a Path, empty; images: how many of each split; sides: shortest and longest, pixels.
    The masks are palette PNG: uint8 class ids, 255 ignored.
    """
    content = {
        "classes": CLASSES,
        "ignore_index": IGNORED,
        "colors": dict(zip(CLASSES, COLOURS, strict=True)),
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


def _with_palette(ids):
    """The mask as an image whose pixels are the ids and which viewers show in colours."""
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[: len(COLOURS)], palette[IGNORED] = COLOURS, 255
    image = Image.fromarray(ids)
    image.putpalette(palette.tobytes())
    return image


def draw_scene(generator, sides=SIDES):
    """A texture with shapes on it, and a band below them at times: (uint8 [H, W, 3], class ids uint8 [H, W], 255 ignored).

    generator: a numpy Generator, the only source of chance.
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


def add_band(generator, ground, ids):
    """A straight band of another texture across the image, with stripes across the band. Changes ground and ids."""
    height, width = ids.shape
    shorter = min(height, width)
    angle = generator.uniform(0, np.pi)
    centre_x, centre_y = generator.uniform(0.3, 0.7, 2) * (width, height)
    half_width = generator.uniform(*BAND_WIDTHS) * shorter / 2
    y, x = np.mgrid[:height, :width] - np.array([centre_y, centre_x])[:, None, None] + 0.5
    along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    inside = np.abs(across) <= half_width
    band = shaded_patch(generator, height, width) + STRIPE_STEP * (along // STRIPE % 2)[..., None]
    ground[inside] = band[inside]
    ids[inside] = BAND


def add_shape(generator, scene, ids):
    """A shape of a random kind, size and turn, a small one where no other fits. Changes scene and ids."""
    kind = sorted(OUTLINES)[generator.integers(len(OUTLINES))]
    for share in (generator.uniform(*RADII), SMALL):
        centre_xy = scene.find_room(generator, share * scene.shorter)
        if centre_xy is not None:
            break
    else:  # a full image goes without it
        return
    window, cover = scene.paint(
        generator, kind, centre_xy, share * scene.shorter, LARGEST_TURN, HUES[kind]
    )
    inside = cover >= 0.5
    if generator.random() < BORDER_SHARE:
        border = generator.integers(1, WIDEST_BORDER, endpoint=True)
        grown = np.asarray(
            Image.fromarray(inside.astype(np.uint8)).filter(
                ImageFilter.MaxFilter(2 * int(border) + 1)
            )
        )
        ids[window][grown.astype(bool)] = IGNORED
    ids[window][inside] = CLASSES.index(kind)
