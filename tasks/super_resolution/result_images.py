"""Answers of `predict`: what is said of an image in json, and the image itself in the form that the input had."""

import numpy as np
from PIL import Image

from visionloop.datasets.io.images import EXIF_ORIENTATION, PILLOW_FORMATS, UPRIGHT
from visionloop.datasets.io.matlab_resize import matlab_resize

RESULTS = "results"  # folder of the images
PHOTO_IFD, GPS_IFD = 0x8769, 0x8825
WIDTH_TAG, HEIGHT_TAG = 0xA002, 0xA003  # of the photo, in PHOTO_IFD
# What a TIFF says of the photograph; its other tags are about the place of pixels in that file:
# description, maker, model, resolution and its unit, software, date, artist, copyright.
PHOTO_TAGS = (270, 271, 272, 282, 283, 296, 305, 306, 315, 33432)
PROFILE_SPACES = {
    "L": b"GRAY",
    "LA": b"GRAY",
    "RGB": b"RGB ",
    "RGBA": b"RGB ",
}  # bytes 16 to 19 of an ICC profile


def describe(predictions, batch, names):
    """[{"file", "width", "height", "scale", "tiled", "exact", "tiling"}]: one per image; width and height of the result.

    exact: whether the network gave what it gives for the whole image; tiling: the same in a
    sentence. predictions: of `evaluate.predict`; batch: "pixel_values"; names: of the files.
    """
    rows = []
    for i, name in enumerate(names):
        height, width = predictions["images"][i].shape[-2:]
        tiling = predictions["tilings"][i]
        row = {
            "file": name,
            "width": width,
            "height": height,
            "scale": width // batch["pixel_values"][i].shape[-1],
        }
        rows.append(
            row | {"tiled": tiling.tiled, "exact": tiling.exact, "tiling": tiling.sentence()}
        )
    return rows


def prediction_files(paths, predictions, scale):
    """{"results": a Pillow image of each image, made as it is asked for}. See `finish_image`."""
    pairs = zip(paths, predictions["images"], strict=True)
    return {RESULTS: (finish_image(path, image, scale) for path, image in pairs)}


def finish_image(path, image, scale):
    """The result as a Pillow image that has what the file at `path` has besides colours: L, LA, RGB or RGBA, profile and EXIF in `info`.

    image: uint8 [3, s*h, s*w] of the upright file. Grey files stay grey, transparency is enlarged
    with MATLAB's bicubic, 16 bits become 8. A profile that is for other channels than the result's,
    CMYK for one, is left out. In EXIF the orientation is gone, since it was applied, and the size
    is the result's. A file that Pillow refuses, though another decoder read it, gives its colours
    alone.
    """
    colors = Image.fromarray(image.permute(1, 2, 0).cpu().numpy())
    try:
        with Image.open(path, formats=PILLOW_FORMATS) as source:
            return dressed(colors, source, scale)
    except (OSError, SyntaxError, ValueError):  # a broken text block of a PNG is enough
        return colors


def dressed(colors, source, scale):
    """colors, the RGB result, with what an open Pillow image has besides."""
    exif = read_exif(source)
    orientation = (
        1 if source.format == "TIFF" else exif.get(EXIF_ORIENTATION, 1)
    )  # Pillow turns TIFF by itself
    grey = source.mode in ("1", "L", "LA", "La") or source.mode.startswith("I")
    finished = colors.convert("L") if grey else colors.copy()
    if source.has_transparency_data:
        finished.putalpha(enlarged_alpha(source, orientation, scale))
    profile = source.info.get("icc_profile", b"")
    if profile[16:20] == PROFILE_SPACES[finished.mode]:
        finished.info["icc_profile"] = profile
    kept = exif_of_result(exif, finished.size)
    if kept:
        finished.info["exif"] = kept
    return finished


def enlarged_alpha(source, orientation, scale):
    """The transparency of an open Pillow image, upright and as large as the result, mode L."""
    alpha = source.convert("RGBA").getchannel("A")
    if orientation in UPRIGHT:
        alpha = alpha.transpose(UPRIGHT[orientation])
    return Image.fromarray(matlab_resize(np.asarray(alpha), scale))


def read_exif(source):
    """The EXIF of an open Pillow image, empty where there is none or the block is broken; of TIFF what concerns the photograph."""
    exif = Image.Exif()
    try:
        if source.format != "TIFF":
            exif.load(source.info.get("exif", b""))
            exif.get_ifd(PHOTO_IFD)  # what is broken shows here
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


def exif_of_result(exif, size_wh):
    """The block's bytes for an image that is upright and of this size; b"" where nothing is left."""
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
