"""Confusion matrices as images."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from visionloop.tasks.drawing.canvas import INK, PAPER, class_label, text_length, text_on

MOST_ROOM = 170  # pixels for a class name next to the matrix
MOST_NAMED = 100  # classes; of more the names would overlap
CORNER = 40  # pixels of height for the two lines in the upper left corner
DARK = np.array((8, 48, 107))  # color of a cell that holds its whole row
LINES = (225, 225, 225)


def draw_confusion(confusion: NDArray[np.int64], classes: Sequence[str]) -> NDArray[np.uint8]:
    """Draw a confusion matrix, uint8 [H, W, 3].

    The color of a cell is its share of the row; counts are written where there is room for them.

    Args:
        confusion: int [C, C], the ground truth in rows.
        classes: names by label.
    """
    num_classes = len(classes)
    cell = int(np.clip(900 / num_classes, 12, 48))
    size = min(14, cell - 1)
    named = range(num_classes if num_classes <= MOST_NAMED else 0)
    names = [class_label(i, classes, size=size, room=MOST_ROOM) for i in named]
    margin = CORNER + max((text_length(name, size) for name in names), default=0)
    side = cell * num_classes
    image = Image.new("RGB", (margin + side + 12, margin + side + 12), PAPER)
    draw = ImageDraw.Draw(image)
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    # the power makes small errors visible
    colors = (255 + (DARK - 255) * share[..., None] ** 0.7).astype(np.uint8)
    cells = Image.fromarray(colors).resize((side, side), Image.Resampling.NEAREST)
    image.paste(cells, (margin, margin))
    for i in range(num_classes + 1 if cell > 8 else 0):
        at = margin + i * cell
        draw.line((at, margin, at, margin + side), fill=LINES)
        draw.line((margin, at, margin + side, at), fill=LINES)
    if cell >= 24:
        _write_counts(draw, confusion, share, margin, cell, size)
    for i, name in enumerate(names):
        _write_name(image, name, margin, margin + i * cell + cell // 2, size)
    text_on(draw, (6, 6), "rows: ground truth", size=12)
    text_on(draw, (6, 22), "columns: prediction", size=12)
    return np.array(image)


def _write_counts(
    draw: ImageDraw.ImageDraw,
    confusion: NDArray[np.int64],
    share: NDArray[np.float64],
    margin: int,
    cell: int,
    size: int,
) -> None:
    for row, column in zip(*np.nonzero(confusion), strict=True):
        center = margin + column * cell + cell // 2, margin + row * cell + cell // 2
        count = confusion[row, column]
        text_on(
            draw,
            center,
            str(count),
            size=size - (4 if count >= 1000 else 0),
            color=PAPER if share[row, column] > 0.4 else INK,
            anchor="mm",
        )


def _write_name(image: Image.Image, name: str, margin: int, center: int, size: int) -> None:
    """Write a name left of its row and, turned by 90 degrees, above its column."""
    text_on(ImageDraw.Draw(image), (margin - 5, center), name, size=size, anchor="rm")
    # no wider than a cell, or it would cover its neighbor
    strip = Image.new("RGB", (margin - CORNER, size), PAPER)
    text_on(ImageDraw.Draw(strip), (0, size // 2), name, size=size, anchor="lm")
    turned = strip.rotate(90, expand=True)
    image.paste(turned, (center - turned.width // 2, margin - 5 - turned.height))
