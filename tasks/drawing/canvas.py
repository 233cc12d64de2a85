"""Text, captions and grids on images, with Pillow alone.

Shared by the `visualize.py` of every task and by the commands `predict` and `check --sheet`.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from visionloop.datasets.io.names import class_name, one_line
from visionloop.tasks.drawing.fonts import font_for, load_fonts, warn_unwritable

Color: TypeAlias = tuple[int, int, int]  # red, green, blue in 0..255
ClassNames: TypeAlias = Sequence[str] | Mapping[int, str]  # by label

LEFT_TO_RIGHT = "\u200e"  # a mark without a glyph
# background of a caption: right, wrong, neither
RIGHT, WRONG, PLAIN = (46, 139, 87), (205, 55, 45), (60, 60, 60)
PAPER, INK = (255, 255, 255), (30, 30, 30)


def class_label(label: int, classes: ClassNames, size: int = 12, room: int | None = None) -> str:
    """Return the name of a class as it can be drawn.

    A name that no font of this machine can write becomes "#" and its label, and a warning is
    logged once.

    Args:
        label: the class.
        classes: names by label.
        size: height of the letters in pixels.
        room: widest text in pixels; a longer name is cut and ends in "…".
    """
    name = class_name(str(classes[label]))
    font = font_for(name, size)
    if font is None:
        warn_unwritable(name, label)
        return f"#{label}"
    while room and len(name) > 1 and font.getlength(name) > room:
        name = name[:-2] + "…" if name.endswith("…") else name[:-1] + "…"
    is_right_to_left = any(unicodedata.bidirectional(letter) in ("R", "AL") for letter in name)
    # without the mark a number behind such a name would change its side
    return name + LEFT_TO_RIGHT if is_right_to_left else name


def text_font(text: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the font that a text is drawn with: Pillow's own where none has all its letters."""
    return font_for(text, size) or load_fonts(size)[-1]


def text_length(text: str, size: int) -> int:
    """Return the width of a text in pixels."""
    text = one_line(text)
    return round(text_font(text, size).getlength(text))


def text_on(
    draw: ImageDraw.ImageDraw,
    position: tuple[float, float],
    text: str,
    *,
    size: int = 12,
    color: Color = INK,
    anchor: str = "la",
) -> None:
    """Write a text on an image, in one line; `anchor` as in Pillow."""
    text = one_line(text)
    font = text_font(text, size)
    # Pillow's own font has the basic layout on every machine, which refuses a direction
    has_directions = getattr(font, "layout_engine", None) == ImageFont.Layout.RAQM
    direction = "ltr" if has_directions else None
    draw.text(position, text, fill=color, font=font, anchor=anchor, direction=direction)


def with_caption(
    image: NDArray[np.uint8], lines: Sequence[str], *, color: Color = PLAIN, size: int = 12
) -> NDArray[np.uint8]:
    """Return the image with a bar of text below it, the first line in white on `color`.

    Args:
        image: uint8 [H, W, 3].
        lines: the text.
        color: behind the first line.
        size: height of the letters in pixels.
    """
    height, width = image.shape[:2]
    line_height = size + 6
    pil_image = Image.new("RGB", (width, height + line_height * len(lines)), PAPER)
    pil_image.paste(Image.fromarray(image))
    draw = ImageDraw.Draw(pil_image)
    draw.rectangle((0, height, width, height + line_height - 1), fill=color)
    for i, line in enumerate(lines):
        top = height + line_height * i + 2
        text_on(draw, (4, top), line, size=size, color=INK if i else PAPER)
    return np.array(pil_image)


def fit_to(image: NDArray[np.uint8], *, longest: int) -> NDArray[np.uint8]:
    """Resize an image, uint8 [H, W, 3], so that its longer side is `longest` pixels."""
    height, width = image.shape[:2]
    scale = longest / max(height, width)
    size_wh = max(1, round(width * scale)), max(1, round(height * scale))
    resample = Image.Resampling.BICUBIC if scale < 1 else Image.Resampling.NEAREST
    return np.array(Image.fromarray(image).resize(size_wh, resample))


def pad_to_width(image: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """Return the image, uint8 [H, W, 3], with a white margin on the right up to this width."""
    margin = max(0, width - image.shape[1])
    return np.pad(image, ((0, 0), (0, margin), (0, 0)), constant_values=255)


def grid(
    images: Sequence[NDArray[np.uint8]], *, columns: int | None = None, gap: int = 6
) -> NDArray[np.uint8]:
    """Lay out images row by row on one sheet, uint8 [H, W, 3].

    Args:
        images: uint8 [h, w, 3] of any sizes.
        columns: images in a row; None: as many as make the sheet about as wide as high.
        gap: pixels between two images.
    """
    height = max(image.shape[0] for image in images)
    width = max(image.shape[1] for image in images)
    columns = columns or max(1, round((len(images) * height / width) ** 0.5))
    rows = -(-len(images) // columns)
    sheet_hw = rows * (height + gap) + gap, columns * (width + gap) + gap
    sheet = np.full((*sheet_hw, 3), 255, dtype=np.uint8)
    for i, image in enumerate(images):
        top, left = gap + (i // columns) * (height + gap), gap + (i % columns) * (width + gap)
        sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
    return sheet
