"""Many samples on one sheet, each with its name and score. Shared by the tasks."""

import numpy as np

from visionloop.tasks.drawing.canvas import PLAIN, font_for, grid, with_caption

NARROWEST = 160  # pixels below an image that its name needs
SIZE = 12  # of the letters


def draw_gallery(images, captions):
    """uint8 [H, W, 3]: images row by row, names below. images: uint8 [h, w, 3] of any sizes; captions: lines of text for each."""
    tiles = []
    for image, lines in zip(images, captions, strict=True):
        wide = np.pad(
            image,
            ((0, 0), (0, max(0, NARROWEST - image.shape[1])), (0, 0)),
            constant_values=255,
        )
        tiles.append(
            with_caption(
                wide, [end_of(line, wide.shape[1] - 8) for line in lines], color=PLAIN, size=SIZE
            )
        )
    return grid(tiles)


def end_of(text, room):
    """As much of the end of a text as fits into `room` pixels: what tells paths apart stands there."""
    font = font_for(text, SIZE)
    if font is None:
        return text
    kept = text
    while len(kept) > 1 and font.getlength("…" + kept if kept != text else kept) > room:
        kept = kept[1:]
    return kept if kept == text else "…" + kept
