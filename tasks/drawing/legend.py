"""Which colour is which class: a strip of names below an image."""

import numpy as np
from PIL import Image, ImageDraw

from visionloop.datasets.segmentation.mask_values import IGNORED
from visionloop.tasks.drawing.canvas import INK, PAPER, class_label, font_for, load_fonts, text_on

MOST_NAMES = 24
NARROWEST = 200  # pixels of width; a narrower image gets a margin
EDGE = (90, 90, 90)  # around a colour, or a pale one would not show on paper


def with_legend(image, pixels, classes, colors, *, words=(), shares=False):
    """The image with a white strip below: `words`, then colour and name of the classes that have pixels, the largest first.

    image: uint8 [H, W, 3]; pixels: int [256], how many of each id, 255 for the ignored ones;
    colors: uint8 [K, 3]; shares: whether a class's share of all pixels is told. A name that no font
    here can write is "#" and its number.
    """
    if image.shape[1] < NARROWEST:
        image = np.pad(
            image, ((0, 0), (0, NARROWEST - image.shape[1]), (0, 0)), constant_values=255
        )
    height, width = image.shape[:2]
    size = int(np.clip(width / 80, 12, 20))
    rows = _in_rows(_entries(pixels, classes, colors, words, shares, size, width), size, width)
    pil_image = Image.new("RGB", (width, height + (size + 8) * len(rows) + 6), PAPER)
    pil_image.paste(Image.fromarray(image))
    draw = ImageDraw.Draw(pil_image)
    for row, entries in enumerate(rows):
        middle = height + 4 + (size + 8) * row + (size + 8) // 2
        for x, color, texts in entries:
            if color:
                draw.rectangle(
                    (x, middle - size // 2, x + size, middle + size // 2), fill=color, outline=EDGE
                )
                x += size + 6
            # one by one: a number behind a name that is written from right to left would change its
            # side
            for text in texts:
                text_on(draw, (x, middle), text, size=size, color=INK, anchor="lm")
                x += _length(text, size) + size // 3
    return np.array(pil_image)


def _entries(pixels, classes, colors, words, shares, size, width):
    """[(colour or None, texts)]."""
    of_class = np.asarray(pixels)[: len(classes)]
    total = of_class.sum()
    largest_first = [int(i) for i in np.argsort(-of_class, kind="stable") if of_class[i]]
    entries = [(None, [word]) for word in words]
    for i in largest_first[:MOST_NAMES]:
        name = class_label(i, classes, size=size, room=width // 2)
        entries.append(
            (tuple(colors[i].tolist()), [name, _percent(of_class[i] / total)] if shares else [name])
        )
    if len(largest_first) > MOST_NAMES:
        entries.append((None, [f"and {len(largest_first) - MOST_NAMES} classes more"]))
    if pixels[IGNORED]:
        entries.append(((0, 0, 0), ["ignored"]))
    return entries


def _percent(share):
    return f"{100 * share:.1f} %" if share >= 0.0005 else "< 0.1 %"


def _in_rows(entries, size, width):
    """[[(x, colour, texts)]] that fit into the width."""
    rows, x = [[]], 6
    for color, texts in entries:
        room = (
            sum(_length(text, size) + size // 3 for text in texts)
            + (size + 6 if color else 0)
            + size
        )
        if rows[-1] and x + room > width:
            rows, x = [*rows, []], 6
        rows[-1].append((x, color, texts))
        x += room
    return rows


def _length(text, size):
    return round((font_for(text, size) or load_fonts(size)[-1]).getlength(text))
