"""A legend below an image: the color of every class that is in it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from visionloop.datasets.segmentation.mask_values import IGNORED
from visionloop.tasks.drawing.canvas import (
    INK,
    PAPER,
    Color,
    class_label,
    pad_to_width,
    text_length,
    text_on,
)

MOST_NAMES = 24
NARROWEST = 200  # pixels of width; a narrower image gets a margin
EDGE = (90, 90, 90)  # around a color, or a pale one would not show on paper


class LegendEntry(NamedTuple):
    """A colored square and texts behind it; without a color, the texts alone."""

    color: Color | None
    texts: tuple[str, ...]


IGNORED_ENTRY = LegendEntry((0, 0, 0), ("ignored",))


def with_legend(
    image: NDArray[np.uint8],
    counts: NDArray[np.int64],
    classes: Sequence[str],
    colors: NDArray[np.uint8],
    *,
    words: Sequence[str] = (),
    counted: bool = False,
    shares: bool = False,
) -> NDArray[np.uint8]:
    """Return the image with a legend below: the most frequent classes, the largest first.

    A name that no font of this machine can write is "#" and its label.

    Args:
        image: uint8 [H, W, 3].
        counts: int [C] boxes or pixels of each class, or int [256] pixels of each id of a mask,
            255 for the ignored ones.
        classes: names by label.
        colors: uint8 [C, 3].
        words: remarks before the classes.
        counted: write the count behind a class.
        shares: write the share of all pixels behind a class.
    """
    width = max(image.shape[1], NARROWEST)
    class_counts = np.asarray(counts)[: len(classes)]
    total = class_counts.sum()
    largest_first = [int(i) for i in np.argsort(-class_counts, kind="stable") if class_counts[i]]
    texts: dict[int, tuple[str, ...]] = {}
    for i in largest_first:
        texts[i] = (str(class_counts[i]),) if counted else ()
        texts[i] += (percent(class_counts[i] / total),) if shares else ()
    entries = [LegendEntry(None, (word,)) for word in words]
    entries += class_entries(texts, classes, colors, width)
    if len(counts) > len(classes) and counts[IGNORED]:
        entries.append(IGNORED_ENTRY)
    return with_entries(image, entries)


def with_entries(image: NDArray[np.uint8], entries: Sequence[LegendEntry]) -> NDArray[np.uint8]:
    """Return the image, uint8 [H, W, 3], with the entries of a legend below, in rows."""
    image = pad_to_width(image, NARROWEST)
    height, width = image.shape[:2]
    size = letter_size(width)
    rows = _break_rows(entries, size, width)
    pil_image = Image.new("RGB", (width, height + (size + 8) * len(rows) + 6), PAPER)
    pil_image.paste(Image.fromarray(image))
    draw = ImageDraw.Draw(pil_image)
    for i, row in enumerate(rows):
        middle = height + 4 + (size + 8) * i + (size + 8) // 2
        for x, entry in row:
            _draw_entry(draw, x, middle, entry, size)
    return np.array(pil_image)


def letter_size(width: int) -> int:
    """Return the height of the letters below an image of this width, in pixels."""
    return int(np.clip(width / 80, 12, 20))


def class_entries(
    texts: Mapping[int, tuple[str, ...]],
    classes: Sequence[str],
    colors: NDArray[np.uint8],
    width: int,
) -> list[LegendEntry]:
    """Return the entries of the first 24 classes, and how many more there are.

    Args:
        texts: {label: what is written behind the name}, in order.
        classes: names by label.
        colors: uint8 [C, 3].
        width: of the image above the legend, in pixels.
    """
    entries = []
    for i in list(texts)[:MOST_NAMES]:
        name = class_label(i, classes, size=letter_size(width), room=width // 2)
        red, green, blue = colors[i].tolist()
        entries.append(LegendEntry((red, green, blue), (name, *texts[i])))
    if len(texts) > MOST_NAMES:
        entries.append(LegendEntry(None, (f"and {len(texts) - MOST_NAMES} more classes",)))
    return entries


def percent(share: float) -> str:
    """Return a share of 0..1 as it is written in a legend."""
    return f"{100 * share:.1f} %" if share >= 0.0005 else "< 0.1 %"


def _break_rows(
    entries: Sequence[LegendEntry], size: int, width: int
) -> list[list[tuple[int, LegendEntry]]]:
    """Return rows of (x, entry) that fit into the width."""
    rows: list[list[tuple[int, LegendEntry]]] = [[]]
    x = 6
    for entry in entries:
        room = sum(text_length(text, size) + size // 3 for text in entry.texts) + size
        room += size + 6 if entry.color else 0
        if rows[-1] and x + room > width:
            rows, x = [*rows, []], 6
        rows[-1].append((x, entry))
        x += room
    return rows


def _draw_entry(
    draw: ImageDraw.ImageDraw, x: int, middle: int, entry: LegendEntry, size: int
) -> None:
    if entry.color:
        square = (x, middle - size // 2, x + size, middle + size // 2)
        draw.rectangle(square, fill=entry.color, outline=EDGE)
        x += size + 6
    # one by one: a number behind a name that is written from right to left would change its side
    for text in entry.texts:
        text_on(draw, (x, middle), text, size=size, color=INK, anchor="lm")
        x += text_length(text, size) + size // 3
