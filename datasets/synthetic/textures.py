"""Pieces of real photographs, from the images inside scikit-image's wheel: no download."""

from functools import cache
from importlib.resources import as_file, files

import numpy as np
from PIL import Image

# Those of skimage/data that look like a surface or a scene; portraits, test charts and drawings are
# left out.
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
LARGEST_ZOOM = 3.0  # most texture pixels per pixel of a patch, along a side


@cache
def load_texture(name):
    """One of TEXTURES as RGB image."""
    with as_file(files("skimage") / "data" / name) as path, Image.open(path) as image:
        return image.convert("RGB")


def random_patch(generator, height, width):
    """A random piece of a random texture, mirrored and tinted at random: uint8 [height, width, 3].

    generator: a numpy Generator, the only source of chance.
    """
    texture = load_texture(TEXTURES[generator.integers(len(TEXTURES))])
    fits = min(texture.width / width, texture.height / height)  # below 1 the texture is enlarged
    zoom = min(fits, generator.uniform(1.0, LARGEST_ZOOM))
    # rounding may make the piece larger than the texture by a hair
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
