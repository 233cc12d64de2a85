"""Training images with their labels, predictions beside the truth, the confusion matrix."""

import numpy as np
from PIL import Image, ImageDraw

from visionloop.tasks.drawing.canvas import (
    INK,
    PAPER,
    class_label,
    font_for,
    text_on,
)

MOST_ROOM = 170  # pixels for a class name beside the confusion matrix
DARK = np.array((8, 48, 107))  # where a confusion cell holds the whole row


def draw_confusion(confusion, classes):
    """confusion: int [C, C], rows are the truth -> uint8 [H, W, 3]. Colour: share of the row; counts where there is room for them."""
    num_classes = len(classes)
    cell = int(np.clip(900 / num_classes, 12, 48))
    size = min(14, cell - 1)
    named = num_classes <= 100  # beyond, names would overlap
    names = (
        [class_label(i, classes, size=size, room=MOST_ROOM) for i in range(num_classes)]
        if named
        else []
    )
    margin = 40 + max(
        (round(font_for(name, size).getlength(name)) for name in names), default=0
    )  # 40: the two lines in the corner
    side = cell * num_classes
    image = Image.new("RGB", (margin + side + 12, margin + side + 12), PAPER)
    draw = ImageDraw.Draw(image)
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    colors = (255 + (DARK - 255) * share[..., None] ** 0.7).astype(
        np.uint8
    )  # small errors must be seen
    image.paste(
        Image.fromarray(colors).resize((side, side), Image.Resampling.NEAREST), (margin, margin)
    )
    for i in range(num_classes + 1 if cell > 8 else 0):
        at = margin + i * cell
        draw.line((at, margin, at, margin + side), fill=(225, 225, 225))
        draw.line((margin, at, margin + side, at), fill=(225, 225, 225))
    if cell >= 24:
        for row, column in zip(*np.nonzero(confusion), strict=True):
            color = PAPER if share[row, column] > 0.4 else INK
            center = margin + column * cell + cell // 2, margin + row * cell + cell // 2
            smaller = 4 if confusion[row, column] >= 1000 else 0
            text_on(
                draw,
                center,
                str(confusion[row, column]),
                size=size - smaller,
                color=color,
                anchor="mm",
            )
    for i, name in enumerate(names):
        _draw_name(image, name, margin, margin + i * cell + cell // 2, size)
    text_on(draw, (6, 6), "rows: truth", size=12)
    text_on(draw, (6, 22), "columns: prediction", size=12)
    return np.array(image)


def _draw_name(image, name, margin, center, size):
    """The same name left of row and, turned by 90 degrees, above column `center`."""
    text_on(ImageDraw.Draw(image), (margin - 5, center), name, size=size, anchor="rm")
    strip = Image.new(
        "RGB", (margin - 40, size), PAPER
    )  # no wider than a cell, or it would cover its neighbour
    text_on(ImageDraw.Draw(strip), (0, size // 2), name, size=size, anchor="lm")
    turned = strip.rotate(90, expand=True)
    image.paste(turned, (center - turned.width // 2, margin - 5 - turned.height))
