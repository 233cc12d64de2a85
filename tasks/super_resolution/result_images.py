"""Predictions of super-resolution: one JSON row per image, and the output images.

An output image keeps the properties of its input file: gray or transparent, ICC profile and EXIF.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from visionloop.datasets.io.headers import EXIF_ORIENTATION, upright
from visionloop.datasets.io.images import open_with_pillow, read_orientation
from visionloop.datasets.io.matlab_resize import matlab_resize
from visionloop.engine.batch import Batch
from visionloop.engine.types import JsonObject, Predictions

RESULTS = "results"  # folder of the output images
PHOTO_IFD, GPS_IFD = 0x8769, 0x8825
WIDTH_TAG, HEIGHT_TAG = 0xA002, 0xA003  # of the photograph, in PHOTO_IFD
# Tags of a TIFF that describe the photograph; the others locate pixels in the file: description,
# maker, model, resolution and its unit, software, date, artist, copyright.
PHOTO_TAGS = (270, 271, 272, 282, 283, 296, 305, 306, 315, 33432)
# {mode of an output: bytes 16 to 19 of an ICC profile for its channels}
PROFILE_SPACES = {"L": b"GRAY", "LA": b"GRAY", "RGB": b"RGB ", "RGBA": b"RGB "}


def describe_predictions(
    predictions: Predictions, batch: Batch, names: Sequence[str]
) -> list[JsonObject]:
    """Describe the output of each image.

    Args:
        predictions: of `evaluate.predict`.
        batch: with the images under "pixel_values".
        names: file names of the images.

    Returns:
        One object {"file", "width", "height", "scale", "tiled", "exact", "tiling"} per image.
        Width and height are of the output; exact: whether it equals the output for the whole
        image; tiling: the same as a sentence.
    """
    rows: list[JsonObject] = []
    for i, name in enumerate(names):
        height, width = predictions["images"][i].shape[-2:]
        tiling = predictions["tilings"][i]
        rows.append(
            {
                "file": name,
                "width": width,
                "height": height,
                "scale": width // batch["pixel_values"][i].shape[-1],
                "tiled": tiling.tiled,
                "exact": tiling.exact,
                "tiling": tiling.describe(),
            }
        )
    return rows


def prediction_images(
    paths: Sequence[Path], predictions: Predictions, scale: int
) -> dict[str, Iterator[Image.Image]]:
    """Return {"results": one Pillow image per file}, each made when it is iterated over."""
    pairs = zip(paths, predictions["images"], strict=True)
    return {RESULTS: (finish_image(path, image, scale) for path, image in pairs)}


def finish_image(path: str | Path, image: torch.Tensor, scale: int) -> Image.Image:
    """Convert an output to a Pillow image with the properties of its input file.

    Gray files stay gray, transparency is enlarged with MATLAB's bicubic, and 16 bits become 8. A
    profile for other channels than the output's, such as CMYK, is left out. In EXIF the
    orientation is removed, since it was applied, and the size is that of the output. If Pillow
    cannot read the file, though another decoder did, only the colors remain.

    Args:
        path: the input file.
        image: uint8 [3, s*h, s*w] of the upright file.
        scale: upscaling factor s.

    Returns:
        An image of mode L, LA, RGB or RGBA with profile and EXIF in `info`.
    """
    colors = Image.fromarray(image.permute(1, 2, 0).cpu().numpy())
    try:
        with open_with_pillow(path) as source:
            # Pillow rotates TIFF by itself
            orientation = 1 if source.format == "TIFF" else read_orientation(path)
            return _apply_properties(colors, source, orientation, scale)
    except (OSError, SyntaxError, ValueError):  # a broken text block of a PNG is enough
        return colors


def _apply_properties(
    colors: Image.Image, source: Image.Image, orientation: int, scale: int
) -> Image.Image:
    """Return the RGB output with mode, transparency, profile and EXIF of an open image."""
    exif = read_exif(source)
    gray = source.mode in ("1", "L", "LA", "La") or source.mode.startswith("I")
    finished = colors.convert("L") if gray else colors.copy()
    if source.has_transparency_data:
        finished.putalpha(_enlarge_alpha(source, orientation, scale))
    profile = source.info.get("icc_profile", b"")
    if profile[16:20] == PROFILE_SPACES[finished.mode]:
        finished.info["icc_profile"] = profile
    exif_bytes = _exif_of_output(exif, finished.size)
    if exif_bytes:
        finished.info["exif"] = exif_bytes
    return finished


def _enlarge_alpha(source: Image.Image, orientation: int, scale: int) -> Image.Image:
    """Return the transparency of an open image, upright and at the output size, mode L."""
    alpha = torch.from_numpy(np.array(source.convert("RGBA").getchannel("A")))
    return Image.fromarray(matlab_resize(upright(alpha, orientation).numpy(), scale))


def read_exif(source: Image.Image) -> Image.Exif:
    """Return the EXIF of an open image; of a TIFF the tags about the photograph.

    It is empty where there is none or the block is broken.
    """
    exif = Image.Exif()
    try:
        if source.format != "TIFF":
            exif.load(source.info.get("exif", b""))
            exif.get_ifd(PHOTO_IFD)  # a broken block raises here
            return exif
        own = source.getexif()
        for tag in PHOTO_TAGS:
            if tag in own:
                exif[tag] = own[tag]
        for ifd in (PHOTO_IFD, GPS_IFD):
            if own.get_ifd(ifd):
                exif.get_ifd(ifd).update(own.get_ifd(ifd))
        return exif
    except Exception:  # given damaged bytes, Pillow's reader may raise anything
        return Image.Exif()


def _exif_of_output(exif: Image.Exif, size_wh: tuple[int, int]) -> bytes:
    """Return the EXIF block of an upright image of this size; b"" where nothing remains."""
    if EXIF_ORIENTATION in exif:
        del exif[EXIF_ORIENTATION]
    photo = exif.get_ifd(PHOTO_IFD)
    for tag, side in zip((WIDTH_TAG, HEIGHT_TAG), size_wh, strict=True):
        if tag in photo:
            photo[tag] = side
    try:
        return exif.tobytes() if len(exif) or photo or exif.get_ifd(GPS_IFD) else b""
    except Exception:  # a tag of a type that Pillow reads but cannot write
        return b""
