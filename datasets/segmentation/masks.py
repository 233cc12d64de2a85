"""Reader of one mask file as class ids, or one clear error.

- A gray file holds values, of 1 to 16 bits, and so does an RGB file whose three channels are equal
  when there are no colors.
- An RGB file is read by the colors of the classes. Alpha is ignored.
- A palette file holds values too. But a program that saves color images with few colors makes
  palette files whose values mean nothing: where a value has the color of another class,
  `classes.json` must define which of them counts ("palette": "values" or "colors").

EXIF orientation is not applied. Everything goes through Pillow: a 480 x 360 PNG takes 0.7 ms, its
image 4.8 ms.
"""

import os
from collections.abc import Sequence
from typing import NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from visionloop.datasets.io.images import MAX_PIXELS, UnreadableImage
from visionloop.datasets.io.layout import shorten
from visionloop.datasets.segmentation.class_file import ClassFile
from visionloop.datasets.segmentation.mask_values import IGNORED, NUM_VALUES

MASK_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")  # formats that preserve every pixel
MASK_FORMATS = ("PNG", "TIFF", "BMP", "DIB")
GRAY_MODES = ("1", "L", "LA", "PA", "I", "I;16", "I;16B", "I;16L")
HEADER = 26  # bytes of a PNG up to its bit depth and color type
SHADES = {2: 85, 4: 17}  # bits of a gray PNG -> factor that Pillow multiplies its values by


class UnreadableMask(UnreadableImage):
    """A mask file that cannot be read, has values without a class, or does not fit its image."""


def read_mask(path: str | os.PathLike[str], class_file: ClassFile) -> torch.Tensor:
    """Read a mask as class ids, uint8 [H, W]: 0 to K - 1, and 255 for ignored.

    Raises:
        UnreadableMask: also with the values that have no class.
    """
    try:
        with open(path, "rb") as file:
            header = file.read(HEADER)
            if not header:
                raise ValueError("empty file")
            bits, is_gray = png_depth(header)
            file.seek(0)
            with Image.open(file, formats=MASK_FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError(
                        f"decompression bomb? the header says {image.width} x {image.height} pixels"
                    )
                return _class_ids(image, SHADES.get(bits, 1) if is_gray else 1, class_file)
    # a decoder given damaged bytes may raise anything
    except Exception as error:
        raise UnreadableMask(path, _reason(error)) from None


def png_depth(header: bytes) -> tuple[int, bool]:
    """Return (bits of a channel, whether it is a gray PNG without alpha).

    Args:
        header: first bytes of a file; (8, False) for another format.
    """
    if len(header) < HEADER or not header.startswith(b"\x89PNG"):
        return 8, False
    return header[24], header[25] == 0


def _class_ids(image: Image.Image, step: int, class_file: ClassFile) -> torch.Tensor:
    """Return the class ids of an open image, uint8 [H, W].

    Args:
        image: the image.
        step: factor that its gray values are multiplied by.
        class_file: meaning of the values.
    """
    if image.mode == "P":
        values = np.array(image)
        if class_file.palette == "colors":
            return _ids_of_colors(np.array(image.convert("RGB")), class_file)
        if class_file.palette is None and class_file.color_ids:
            _compare_colors(image.getpalette("RGB") or [], values, class_file)
        return _ids_of_values(values, class_file)
    if image.mode in ("RGB", "RGBA", "RGBX"):
        pixels = np.array(image.convert("RGB"))
        if class_file.color_ids:
            return _ids_of_colors(pixels, class_file)
        if (pixels != pixels[..., :1]).any():
            raise ValueError(
                f'is a color image, and {class_file.path} has no "colors" that say what they mean'
            )
        return _ids_of_values(pixels[..., 0], class_file)
    if image.mode not in GRAY_MODES:
        raise ValueError(f"has {image.mode} pixels, expected are class ids or colors")
    values = np.array(image)
    if values.dtype == bool:
        values = values.astype(np.uint8)
    elif step > 1:
        values = values // step
    return _ids_of_values(values if values.ndim == 2 else values[..., 0], class_file)


def _ids_of_values(
    values: NDArray[np.uint8] | NDArray[np.int32] | NDArray[np.uint16], class_file: ClassFile
) -> torch.Tensor:
    """Return the class ids of values [H, W] of any integer type."""
    if values.dtype == np.uint8:
        table, valid = class_file.byte_table
        data = bytearray(values.data)  # bytes.translate is 2 to 4 times faster than indexing
        wrong_bytes = data.translate(None, valid)
        if wrong_bytes:
            _refuse(sorted(set(wrong_bytes)), len(wrong_bytes), class_file)
        return torch.frombuffer(data.translate(table), dtype=torch.uint8).view(values.shape)
    in_range = (values >= 0) & (values < NUM_VALUES)
    rows = np.where(in_range, values, 0)
    wrong = ~(in_range & class_file.is_valid[rows])
    if wrong.any():
        _refuse(np.unique(values[wrong]).tolist(), int(wrong.sum()), class_file)
    return torch.from_numpy(class_file.table[rows])


def _refuse(values: Sequence[int], count: int, class_file: ClassFile) -> NoReturn:
    """Raise ValueError for values without a class. count: of their pixels."""
    listed = shorten([str(value) for value in values])
    hint = ""
    if values == [len(class_file.classes)]:
        hint = (
            '; when the files count from 1 and 0 is nothing, as in ADE20K, say "ids": "shift" there'
        )
    what = f"the value {listed}" if len(values) == 1 else f"{len(values)} values ({listed})"
    raise ValueError(
        f"holds {what} in {count} pixels, {class_file.path} defines "
        f"{class_file.describe_values()}{hint}"
    )


def _ids_of_colors(pixels: NDArray[np.uint8], class_file: ClassFile) -> torch.Tensor:
    """Return the class ids of colors, uint8 [H, W, 3]."""
    valid_codes, ids = class_file.sorted_colors
    red, green = pixels[..., 0].astype(np.int32), pixels[..., 1].astype(np.int32)
    codes = red << 16 | green << 8 | pixels[..., 2]
    positions = np.minimum(np.searchsorted(valid_codes, codes), len(valid_codes) - 1)
    is_valid = valid_codes[positions] == codes
    if not is_valid.all() and not class_file.other_colors:
        colors = np.unique(pixels[~is_valid], axis=0).tolist()
        what = (
            f"{len(colors)} colors that no class has"
            if len(colors) > 1
            else "a color that no class has"
        )
        listed = shorten([str(color) for color in colors], 3)
        raise ValueError(f"holds {what}, {listed}, in {(~is_valid).sum()} pixels")
    return torch.from_numpy(np.where(is_valid, ids[positions], np.uint8(IGNORED)))


def _compare_colors(
    palette: Sequence[int], values: NDArray[np.uint8], class_file: ClassFile
) -> None:
    """Raise ValueError when a value in use has the color of another class.

    Args:
        palette: [r, g, b, r, g, b, ...].
        values: of the mask.
        class_file: meaning of values and colors.
    """
    for value in np.flatnonzero(np.bincount(values.ravel(), minlength=256)).tolist():
        red, green, blue = (*palette[3 * value : 3 * value + 3], *3 * [-1])[:3]
        by_value = class_file.table[value]
        by_color = class_file.color_ids.get((red, green, blue), IGNORED)
        both_valid = IGNORED not in (by_value, by_color)
        if class_file.is_valid[value] and both_valid and by_value != by_color:
            raise ValueError(
                f"the value {value} means {class_file.classes[by_value]!r} and has the color of "
                f'{class_file.classes[by_color]!r}; say "palette": "values" or "colors" in '
                f"{class_file.path}, which of them counts"
            )


def gray_palette_mismatch(path: str | os.PathLike[str], class_file: ClassFile) -> str | None:
    """Return the warning for a palette file whose grays are other values than its indices.

    Programs that save a gray mask with few values as a palette keep the grays and renumber the
    indices, which are what is read. None for any other file, and where `classes.json` chooses.
    """
    if class_file.palette is not None or class_file.color_ids:
        return None
    with Image.open(path, formats=MASK_FORMATS) as image:
        if image.mode != "P":
            return None
        palette = np.array(image.getpalette("RGB") or [], dtype=np.int64).reshape(-1, 3)
        used = np.unique(np.array(image))
    colors = palette[used[used < len(palette)]]
    if not len(colors) or (colors != colors[:, :1]).any():
        return None
    grays = colors[:, 0]
    both = class_file.is_valid[grays].all() and class_file.is_valid[used].all()
    if not both or (grays == used[: len(grays)]).all():
        return None
    pairs = [f"{value} is gray {gray}" for value, gray in zip(used, grays, strict=False)]
    return (
        f"its values and the grays of its palette differ ({shorten(pairs, 3)}); the values count. "
        'Say "palette": "values" in classes.json if that is right, or save the mask as gray'
    )


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "no PNG, TIFF or BMP file; other formats do not keep class ids"
    if isinstance(error, Image.DecompressionBombError):
        return f"decompression bomb? {error}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).splitlines() or [""])[0] or type(error).__name__
