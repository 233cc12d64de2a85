"""Sample data of super-resolution: crops of the photographs that scikit-image ships.

Every crop is a function of (seed, split, number) only. Training and validation never share a
photograph. The crops of validation do not overlap as long as there are no more of them than
regions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from visionloop.datasets.super_resolution.downscale import shrink
from visionloop.datasets.super_resolution.lr_folders import HR, lr_folder_name
from visionloop.datasets.synthetic.textures import load_texture

SPLITS = {"train": 40, "val": 6}  # images
# shortest and longest side in pixels, height and width drawn independently; less in a small region
SIDES = (200, 300)
# of the low-resolution images of validation; those of training are computed when they are needed
GIVEN_SCALE = 2


@dataclass(frozen=True)
class Region:
    """A part of a photograph.

    box: left, top, right, bottom; None: all of it; shrunk: factor by which it is reduced, which
    removes JPEG artifacts.
    """

    photograph: str
    box: tuple[int, int, int, int] | None = None
    shrunk: int = 1

    def load(self) -> Image.Image:
        """Return the region as RGB image."""
        image = load_texture(self.photograph)
        return (image.crop(self.box) if self.box else image).reduce(self.shrunk)


REGIONS = {
    "train": (
        Region("motorcycle_left.png"),
        Region("coffee.png"),
        Region("brick.png"),
        Region("hubble_deep_field.jpg", shrunk=2),
        Region("coins.png"),
        Region("rocket.jpg", shrunk=2),
        Region("gravel.png"),
        Region("ihc.png"),
        Region("grass.png"),
        Region("retina.jpg", shrunk=2),
    ),
    "val": (
        Region("astronaut.png", (0, 0, 256, 512)),
        Region("chelsea.png", (0, 0, 225, 300)),
        Region("camera.png", (0, 0, 256, 512)),
        Region("astronaut.png", (256, 0, 512, 512)),
        Region("chelsea.png", (225, 0, 451, 300)),
        Region("camera.png", (256, 0, 512, 512)),
    ),
}


def write_super_resolution(
    folder: Path,
    seed: int,
    images: Mapping[str, int] = SPLITS,
    sides: tuple[int, int] = SIDES,
) -> None:
    """Write `train/HR/0000.png`, `val/HR/0000.png` and `val/LR_x2/0000x2.png`.

    folder: an empty folder; images: {split: number of images}; sides: shortest and longest side in
    pixels.
    """
    with tqdm(total=sum(images.values()), desc="sample data", unit="image", disable=None) as bar:
        for split_number, (split, count) in enumerate(images.items()):
            (folder / split / HR).mkdir(parents=True)
            lr_folder = folder / split / lr_folder_name(GIVEN_SCALE)
            if split == "val":
                lr_folder.mkdir()
            for number in range(count):
                region = REGIONS[split][number % len(REGIONS[split])]
                crop = random_crop(
                    np.random.default_rng([seed, split_number, number]), region, sides
                )
                crop.save(folder / split / HR / f"{number:04}.png")
                if split == "val":
                    even = np.asarray(crop)[: crop.height // 2 * 2, : crop.width // 2 * 2]
                    Image.fromarray(shrink(even, GIVEN_SCALE)).save(
                        lr_folder / f"{number:04}x{GIVEN_SCALE}.png"
                    )
                bar.update()


def random_crop(
    generator: np.random.Generator, region: Region, sides: tuple[int, int] = SIDES
) -> Image.Image:
    """Return a random crop of a region, flipped half of the time."""
    image = region.load()
    width, height = (
        min(int(side), limit)
        for side, limit in zip(
            generator.integers(*sides, 2, endpoint=True), image.size, strict=True
        )
    )
    left, top = (
        int(generator.integers(limit + 1)) for limit in (image.width - width, image.height - height)
    )
    crop = image.crop((left, top, left + width, top + height))
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if generator.random() < 0.5 else crop
