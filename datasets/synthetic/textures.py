"""Patches of real photographs from the images that scikit-image ships: no download."""

from functools import cache
from importlib.resources import as_file, files

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# The images of skimage/data that show a surface or a scene; no portraits, test charts or drawings.
TEXTURES = (
    "brick.png",
    "chelsea.png",
    "coffee.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
)
MAX_ZOOM = 3.0  # texture pixels per pixel of a patch, along a side


@cache
def load_texture(name: str) -> Image.Image:
    """Load an image of skimage/data as RGB."""
    with as_file(files("skimage") / "data" / name) as path, Image.open(path) as image:
        return image.convert("RGB")


def random_patch(generator: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """Return a random crop of a random texture, randomly flipped and tinted.

    Returns uint8 [height, width, 3]. The generator is the only source of randomness.
    """
    texture = load_texture(TEXTURES[generator.integers(len(TEXTURES))])
    fits = min(texture.width / width, texture.height / height)  # below 1 the texture is enlarged
    zoom = min(fits, generator.uniform(1.0, MAX_ZOOM))
    # rounding may make the crop slightly larger than the texture
    left = generator.uniform(0, max(0, texture.width - zoom * width))
    top = generator.uniform(0, max(0, texture.height - zoom * height))
    box = (
        left,
        top,
        min(left + zoom * width, texture.width),
        min(top + zoom * height, texture.height),
    )
    patch = np.asarray(
        texture.resize((width, height), Image.Resampling.BILINEAR, box=box), dtype=np.float64
    )
    if generator.random() < 0.5:
        patch = patch[:, ::-1]
    tint = generator.uniform(0.7, 1.2, 3)
    return np.clip(patch * tint, 0, 255).astype(np.uint8)
