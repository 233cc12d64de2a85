"""Contact sheets: many samples on one image, each with its name and score below."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from visionloop.datasets.io.names import one_line
from visionloop.tasks.drawing.canvas import PLAIN, font_for, grid, pad_to_width, with_caption

NARROWEST = 160  # pixels of an image whose name is to fit below it
SIZE = 12  # height of the letters in pixels


def draw_gallery(
    images: Sequence[NDArray[np.uint8]], captions: Sequence[Sequence[str]]
) -> NDArray[np.uint8]:
    """Lay out images row by row with their captions, uint8 [H, W, 3].

    Args:
        images: uint8 [h, w, 3] of any sizes.
        captions: the lines of text below each image; a long one loses its start.
    """
    tiles = []
    for image, lines in zip(images, captions, strict=True):
        tile = pad_to_width(image, NARROWEST)
        texts = [shorten_start(line, tile.shape[1] - 8) for line in lines]
        tiles.append(with_caption(tile, texts, color=PLAIN, size=SIZE))
    return grid(tiles)


def shorten_start(text: str, room: int) -> str:
    """Cut the start of a text that is wider than `room` pixels: paths differ at their ends."""
    text = one_line(text)
    font = font_for(text, SIZE)
    if font is None:
        return text
    end = text
    while len(end) > 1 and font.getlength("…" + end if end != text else end) > room:
        end = end[1:]
    return end if end == text else "…" + end
