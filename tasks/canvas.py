"""Words, captions and grids on pictures, with Pillow alone. Shared by the tasks' `draw.py` and by `predict`."""

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# tried in this order; Pillow's own font, which knows Latin alone, is the last that must exist
FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "arialuni.ttf", "msyh.ttc")
RIGHT, WRONG, PLAIN = (46, 139, 87), (205, 55, 45), (60, 60, 60)
PAPER, INK = (255, 255, 255), (30, 30, 30)
NO_GLYPH = "\U0010fffe"  # a code point that no font draws


@lru_cache
def load_fonts(size):
    """The fonts of this machine that we know, Pillow's own last."""
    found = []
    for name in FONTS:
        try:
            found.append(ImageFont.truetype(name, size))
        except OSError:
            continue
    return (*found, ImageFont.load_default(size))


@lru_cache(maxsize=4096)
def font_for(text, size):
    """A font that has a glyph for every letter of `text`, or None."""
    for font in load_fonts(size):
        blank = bytes(font.getmask(NO_GLYPH))
        if all(letter.isspace() or bytes(font.getmask(letter)) != blank for letter in set(text)):
            return font
    return None


def class_label(i, classes, size=12, room=None):
    """The name of class i, or "#i" where no font can write it; cut to `room` pixels."""
    name = str(classes[i])
    font = font_for(name, size)
    if font is None:
        return f"#{i}"
    while room and len(name) > 1 and font.getlength(name) > room:
        name = name[:-2] + "…" if name.endswith("…") else name[:-1] + "…"
    return name


def text_on(draw, position, text, *, size=12, color=INK, anchor="la"):
    """Write `text`; anchor as in Pillow."""
    font = font_for(text, size) or load_fonts(size)[-1]
    draw.text(position, text, fill=color, font=font, anchor=anchor)


def with_caption(picture, lines, *, color=PLAIN, size=12):
    """picture: uint8 [H, W, 3] -> the same with a bar below it, one line of text each; the first line in white on `color`."""
    height, width = picture.shape[:2]
    line_height = size + 6
    image = Image.new("RGB", (width, height + line_height * len(lines)), PAPER)
    image.paste(Image.fromarray(picture))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, height, width, height + line_height - 1), fill=color)
    for i, line in enumerate(lines):
        text_on(draw, (4, height + line_height * i + 2), line, size=size, color=PAPER if i == 0 else INK)
    return np.array(image)


def fit_to(picture, *, longest):
    """picture: uint8 [H, W, 3], made smaller or larger so that its longer side is `longest` pixels."""
    height, width = picture.shape[:2]
    scale = longest / max(height, width)
    size_wh = max(1, round(width * scale)), max(1, round(height * scale))
    return np.array(Image.fromarray(picture).resize(size_wh, Image.Resampling.BICUBIC if scale < 1 else Image.Resampling.NEAREST))


def grid(pictures, *, columns=None, gap=6):
    """uint8 pictures [H, W, 3] of any sizes on one sheet, row by row, about as wide as high."""
    height = max(picture.shape[0] for picture in pictures)
    width = max(picture.shape[1] for picture in pictures)
    columns = columns or max(1, round((len(pictures) * height / width) ** 0.5))
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, dtype=np.uint8)
    for i, picture in enumerate(pictures):
        top, left = gap + (i // columns) * (height + gap), gap + (i % columns) * (width + gap)
        sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return sheet
