"""Small super-resolution datasets: large images with or without their small versions."""

import numpy as np
from PIL import Image

from visionloop.datasets.super_resolution.downscale import shrink


def some_image(key, height, width):
    """Return blurred colors with some grain, seeded by a text: uint8 [height, width, 3]."""
    generator = np.random.default_rng([*key.encode()])
    coarse = generator.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
    smooth = np.asarray(
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), dtype=np.int64
    )
    return np.clip(smooth + generator.integers(-30, 31, smooth.shape), 0, 255).astype(np.uint8)


def write_image(path, image):
    """Write an image, uint8 [H, W] or [H, W, 3 or 4] or a Pillow image; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path)
    return path


def write_super_resolution_data(folder, images=4, size_hw=(50, 62), given=()):
    """Write train and val; given: scales of small images, `a00x2.png` for `a00.png`."""
    height, width = size_hw
    for split in ("train", "val"):
        for number in range(images):
            name = f"{split[0]}{number:02}"
            image = some_image(name, height + number, width)
            write_image(folder / split / "HR" / f"{name}.png", image)
            for scale in given:
                even = image[: len(image) // scale * scale, : width // scale * scale]
                write_image(
                    folder / split / f"LR_x{scale}" / f"{name}x{scale}.png", shrink(even, scale)
                )
    return folder
