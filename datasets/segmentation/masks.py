"""One mask file as class ids, or one clear reason why not.

- A grey file holds values, of 1 to 16 bits, and so does an RGB file whose three channels are equal
when no colours are given.
- An RGB file is read by the colours of the classes. Alpha is passed over.
- A palette file holds values too. But a programme that saves coloured images with few colours
makes palette files whose values mean
  nothing: where a value has the colour of another class, `classes.json` must say which of them
  counts ("palette": "values" or "colors").

EXIF is not asked: a mask is as its pixels lie. Everything goes through Pillow: a 480 x 360 PNG
takes 0.7 ms, its image 4.8 ms.
"""

import numpy as np
import torch
from PIL import Image

from visionloop.datasets.io.images import MAX_PIXELS, UnreadableImage
from visionloop.datasets.io.layout import shorten
from visionloop.datasets.segmentation.mask_values import IGNORED, VALUES

MASK_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")  # formats that keep every pixel
MASK_FORMATS = ("PNG", "TIFF", "BMP", "DIB")
HEADER = 26  # bytes of a PNG up to its depth and kind of colour
SHADES = {2: 85, 4: 17}  # bits of a grey PNG -> step that Pillow spreads its values by


class UnreadableMask(UnreadableImage):
    """A mask file that cannot be read, or holds what is no class, or does not fit its image. path: the file; why: in a few words."""


def read_mask(path, class_file):
    """The mask as class ids: uint8 [H, W], 0 to K - 1, and 255 for ignored. Raises UnreadableMask with the values that are no class."""
    try:
        with open(path, "rb") as file:
            header = file.read(HEADER)
            if not header:
                raise ValueError("empty file")
            bits, is_grey = png_depth(header)
            file.seek(0)
            with Image.open(file, formats=MASK_FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError(
                        f"decompression bomb? the header says {image.width} x {image.height} pixels"
                    )
                return _class_ids(image, SHADES.get(bits, 1) if is_grey else 1, class_file)
    # a decoder given damaged bytes may raise anything
    except Exception as error:
        raise UnreadableMask(path, _reason(error)) from None


def png_depth(header):
    """(bits of a channel, whether it is a grey PNG without alpha) from the first bytes of a file; (8, False) of another format."""
    if len(header) < HEADER or not header.startswith(b"\x89PNG"):
        return 8, False
    return header[24], header[25] == 0


def _class_ids(image, step, class_file):
    """uint8 [H, W] of an open Pillow image. step: that its grey values are spread by."""
    if image.mode == "P":
        values = np.array(image)
        if class_file.palette == "colors":
            return _ids_of_colors(np.array(image.convert("RGB")), class_file)
        if class_file.palette is None and class_file.color_ids:
            _compare_colors(image.getpalette("RGB"), values, class_file)
        return _ids_of_values(values, class_file)
    if image.mode in ("RGB", "RGBA", "RGBX"):
        pixels = np.array(image.convert("RGB"))
        if class_file.color_ids:
            return _ids_of_colors(pixels, class_file)
        if (pixels != pixels[..., :1]).any():
            raise ValueError(
                f'is a coloured image, and {class_file.path} has no "colors" that say what they mean'
            )
        return _ids_of_values(pixels[..., 0], class_file)
    if image.mode not in ("1", "L", "LA", "PA", "I", "I;16", "I;16B", "I;16L"):
        raise ValueError(f"has {image.mode} pixels, expected are class ids or colours")
    values = np.array(image)
    values = (
        values.astype(np.uint8) if values.dtype == bool else values // step if step > 1 else values
    )
    return _ids_of_values(values if values.ndim == 2 else values[..., 0], class_file)


def _ids_of_values(values, class_file):
    """values: [H, W] of any whole numbers."""
    if values.dtype == np.uint8:
        table, known = class_file.byte_table
        data = bytearray(values)  # bytes.translate is 2 to 4 times faster than indexing
        strange = data.translate(None, known)
        if strange:
            _refuse(sorted(set(strange)), len(strange), class_file)
        return torch.frombuffer(data.translate(table), dtype=torch.uint8).view(values.shape)
    inside = (values >= 0) & (values < VALUES)
    rows = np.where(inside, values, 0)
    wrong = ~(inside & class_file.known[rows])
    if wrong.any():
        _refuse(np.unique(values[wrong]).tolist(), int(wrong.sum()), class_file)
    return torch.from_numpy(class_file.table[rows])


def _refuse(values, count, class_file):
    shown = shorten([str(value) for value in values])
    hint = ""
    if values == [len(class_file.classes)]:
        hint = (
            '; when the files count from 1 and 0 is nothing, as in ADE20K, say "ids": "shift" there'
        )
    what = f"the value {shown}" if len(values) == 1 else f"{len(values)} values"
    listed = "" if len(values) == 1 else f" ({shown})"
    raise ValueError(
        f"holds {what}{listed} in {count} pixels, {class_file.path} knows {class_file.describe_values()}{hint}"
    )


def _ids_of_colors(pixels, class_file):
    """pixels: uint8 [H, W, 3]."""
    known, ids = class_file.sorted_colors
    codes = (
        pixels[..., 0].astype(np.int32) << 16
        | pixels[..., 1].astype(np.int32) << 8
        | pixels[..., 2]
    )
    places = np.minimum(np.searchsorted(known, codes), len(known) - 1)
    found = known[places] == codes
    if not found.all() and not class_file.other_colors:
        colors = np.unique(pixels[~found], axis=0).tolist()
        what = (
            f"{len(colors)} colours that no class has"
            if len(colors) > 1
            else "a colour that no class has"
        )
        raise ValueError(
            f"holds {what}, {shorten([str(color) for color in colors], 3)}, in {(~found).sum()} pixels"
        )
    return torch.from_numpy(np.where(found, ids[places], np.uint8(IGNORED)))


def _compare_colors(palette, values, class_file):
    """Raises ValueError when a value in use has the colour of another class than it means. palette: [r, g, b, r, g, b, ...]."""
    for value in np.flatnonzero(np.bincount(values.ravel(), minlength=256)).tolist():
        meant, colored = (
            class_file.table[value],
            class_file.color_ids.get(tuple(palette[3 * value : 3 * value + 3]), IGNORED),
        )
        if class_file.known[value] and IGNORED not in (meant, colored) and meant != colored:
            what = f"the value {value} means {class_file.classes[meant]!r} and has the colour of {class_file.classes[colored]!r}"
            raise ValueError(
                f'{what}; say "palette": "values" or "colors" in {class_file.path}, which of them counts'
            )


def _reason(error):
    if isinstance(error, Image.UnidentifiedImageError):
        return "no PNG, TIFF or BMP file; other formats do not keep class ids"
    if isinstance(error, Image.DecompressionBombError):
        return f"decompression bomb? {error}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).splitlines() or [""])[0] or type(error).__name__
