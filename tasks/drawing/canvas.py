"""Words, captions and grids on images, with Pillow alone. Shared by the tasks' `draw.py` and by `predict`."""

import unicodedata

import numpy as np
from PIL import Image, ImageDraw, features

from visionloop.tasks.drawing.fonts import font_for, load_fonts, warn_of

LEFT_TO_RIGHT = "\u200e"  # a mark without a glyph
RIGHT, WRONG, PLAIN = (46, 139, 87), (205, 55, 45), (60, 60, 60)
PAPER, INK = (255, 255, 255), (30, 30, 30)


def class_label(i, classes, size=12, room=None):
    """The name of class i, or "#i" where no font can write it, which is said once; cut to `room` pixels."""
    name = unicodedata.normalize("NFC", str(classes[i]))  # some file systems take letters apart
    font = font_for(name, size)
    if font is None:
        warn_of(name, i)
        return f"#{i}"
    while room and len(name) > 1 and font.getlength(name) > room:
        name = name[:-2] + "…" if name.endswith("…") else name[:-1] + "…"
    leftward = any(unicodedata.bidirectional(letter) in ("R", "AL") for letter in name)
    return name + LEFT_TO_RIGHT if leftward else name  # or a number behind it would change its side


def text_on(draw, position, text, *, size=12, color=INK, anchor="la"):
    """Write `text`; anchor as in Pillow."""
    font = font_for(text, size) or load_fonts(size)[-1]
    draw.text(
        position,
        text,
        fill=color,
        font=font,
        anchor=anchor,
        direction="ltr" if features.check("raqm") else None,
    )


def with_caption(image, lines, *, color=PLAIN, size=12):
    """image: uint8 [H, W, 3] -> the same with a bar below it, one line of text each; the first line in white on `color`."""
    height, width = image.shape[:2]
    line_height = size + 6
    pil_image = Image.new("RGB", (width, height + line_height * len(lines)), PAPER)
    pil_image.paste(Image.fromarray(image))
    draw = ImageDraw.Draw(pil_image)
    draw.rectangle((0, height, width, height + line_height - 1), fill=color)
    for i, line in enumerate(lines):
        text_on(
            draw, (4, height + line_height * i + 2), line, size=size, color=PAPER if i == 0 else INK
        )
    return np.array(pil_image)


def fit_to(image, *, longest):
    """image: uint8 [H, W, 3], made smaller or larger so that its longer side is `longest` pixels."""
    height, width = image.shape[:2]
    scale = longest / max(height, width)
    size_wh = max(1, round(width * scale)), max(1, round(height * scale))
    return np.array(
        Image.fromarray(image).resize(
            size_wh, Image.Resampling.BICUBIC if scale < 1 else Image.Resampling.NEAREST
        )
    )


def grid(images, *, columns=None, gap=6):
    """uint8 images [H, W, 3] of any sizes on one sheet, row by row, about as wide as high."""
    height = max(image.shape[0] for image in images)
    width = max(image.shape[1] for image in images)
    columns = columns or max(1, round((len(images) * height / width) ** 0.5))
    rows = -(-len(images) // columns)
    sheet = np.full(
        (rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, dtype=np.uint8
    )
    for i, image in enumerate(images):
        top, left = gap + (i // columns) * (height + gap), gap + (i % columns) * (width + gap)
        sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
    return sheet
