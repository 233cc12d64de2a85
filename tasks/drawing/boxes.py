"""Bounding boxes on images: a color per class, and a tag with name and score where it fits."""

import colorsys
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from visionloop.tasks.drawing.canvas import (
    INK,
    PAPER,
    ClassNames,
    Color,
    class_label,
    text_length,
    text_on,
)

# distinct on bright and on dark images; further classes go around the color wheel
COLORS = (
    (40, 170, 255),
    (255, 130, 30),
    (60, 205, 110),
    (255, 230, 60),
    (225, 110, 240),
    (235, 60, 90),
    (70, 225, 215),
    (250, 150, 185),
)
EDGE = (20, 20, 20)  # a dark line next to a color, which is then visible on any image
GOLDEN_TURN = 0.618034
SPARSE = 25  # up to this number of boxes a tag may overlap a neighboring box
MANY = 100  # of more boxes the frames are thinner
MOST_COVERED = 1 / 8  # of the image, by all tags together


def class_color(label: int) -> Color:
    """Return the color of a class, the same in every image and for any number of classes."""
    if label < len(COLORS):
        return COLORS[label]
    lightness = (0.62, 0.75, 0.55)[label % 3]
    red, green, blue = colorsys.hls_to_rgb(label * GOLDEN_TURN % 1, lightness, 0.85)
    return round(255 * red), round(255 * green), round(255 * blue)


def class_colors(num_classes: int) -> NDArray[np.uint8]:
    """Return the colors of all classes, uint8 [C, 3]."""
    colors = [class_color(label) for label in range(num_classes)]
    return np.array(colors, dtype=np.uint8).reshape(-1, 3)


def draw_boxes(
    image: NDArray[np.uint8],
    boxes: ArrayLike,
    labels: ArrayLike,
    classes: ClassNames,
    scores: ArrayLike | None = None,
    *,
    dashed: ArrayLike | None = None,
    names: bool = True,
) -> NDArray[np.uint8]:
    """Draw boxes on a copy of an image; the best score on top, without scores the smallest box.

    A tag loses its name, then is left out, where the box is small or the place is taken.

    Args:
        image: uint8 [H, W, 3].
        boxes: [N, 4], xyxy in pixels of the image; parts beyond its border are cut off.
        labels: int [N].
        classes: names by label.
        scores: [N] in 0..1.
        dashed: bool [N], frames with gaps.
        names: False leaves the class to the color and a legend.
    """
    pil_image = Image.fromarray(image)
    draw = ImageDraw.Draw(pil_image)
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    labels = np.asarray(labels, dtype=np.int64)
    scores = None if scores is None else np.asarray(scores, dtype=np.float64)
    dashed = np.zeros(len(boxes), dtype=bool) if dashed is None else np.asarray(dashed)
    boxes = boxes.clip(0, np.tile(pil_image.size, 2))
    sides = boxes[:, 2:] - boxes[:, :2]
    best_first = np.argsort(sides.prod(axis=1) if scores is None else -scores, kind="stable")
    best_first = best_first[(sides > 0).all(axis=1)[best_first]]
    thickness = (2 if max(pil_image.size) < 1000 else 3) - (len(boxes) > MANY)
    for i in best_first[::-1]:
        draw_frame(draw, boxes[i], class_color(labels[i]), thickness, dashed=bool(dashed[i]))
    size = int(np.clip(max(pil_image.size) / 48, 10, 22))
    named = classes if names else None
    texts = [
        _tag_texts(named, labels[i], None if scores is None else scores[i], size)
        for i in best_first
    ]
    place_tags(draw, pil_image.size, boxes, texts, best_first, labels, size)
    return np.array(pil_image)


def draw_frame(
    draw: ImageDraw.ImageDraw,
    box: NDArray[np.float64],
    color: Color,
    thickness: int,
    *,
    dashed: bool = False,
) -> None:
    """Draw one frame `thickness` pixels wide, thinner on a tiny box, with a dark line around it."""
    left, top, right, bottom = (round(float(value)) for value in box)
    right, bottom = max(right - 1, left), max(bottom - 1, top)  # the last pixel inside
    thickness = 1 if min(right - left, bottom - top) < 6 * thickness else thickness
    draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=EDGE)
    if not dashed:
        draw.rectangle((left, top, right, bottom), outline=color, width=thickness)
        return
    dash, gap = 3 + 2 * thickness, 2 + 2 * thickness
    inner_right, inner_bottom = max(right - thickness + 1, left), max(bottom - thickness + 1, top)
    for start in range(left, right + 1, dash + gap):
        stop = min(start + dash - 1, right)
        draw.rectangle((start, top, stop, min(top + thickness - 1, bottom)), fill=color)
        draw.rectangle((start, inner_bottom, stop, bottom), fill=color)
    for start in range(top, bottom + 1, dash + gap):
        stop = min(start + dash - 1, bottom)
        draw.rectangle((left, start, min(left + thickness - 1, right), stop), fill=color)
        draw.rectangle((inner_right, start, right, stop), fill=color)


def place_tags(
    draw: ImageDraw.ImageDraw,
    size_wh: tuple[int, int],
    boxes: NDArray[np.float64],
    texts: Sequence[Sequence[str]],
    order: NDArray[np.int64],
    labels: NDArray[np.int64],
    size: int,
) -> None:
    """Write one tag per box where one of its texts fits, inside the image and on no other tag.

    Args:
        draw: of the image.
        size_wh: width and height of the image.
        boxes: float [N, 4], xyxy.
        texts: the possible texts of each box of `order`, longest first.
        order: int [M], the boxes with a tag, most important first.
        labels: int [N].
        size: height of the letters in pixels.
    """
    taken, room = np.zeros((0, 4)), MOST_COVERED * size_wh[0] * size_wh[1]
    is_crowded = len(boxes) > SPARSE
    for i, choices in zip(order, texts, strict=True):
        others = np.delete(boxes, i, axis=0) if is_crowded else boxes[:0]
        place = _first_place(choices, boxes[i], size_wh, size, taken, others)
        if place is None:
            continue
        text, (left, top, right, bottom) = place
        room -= (right - left) * (bottom - top)
        if room < 0:
            return
        write_tag(draw, (left, top, right, bottom), text, class_color(labels[i]), size)
        taken = np.concatenate([taken, [[left, top, right, bottom]]])


def write_tag(
    draw: ImageDraw.ImageDraw,
    area: tuple[int, int, int, int],
    text: str,
    color: Color,
    size: int,
) -> None:
    """Write a text in black or white, whichever is readable, on a rectangle of a color.

    Args:
        draw: of the image.
        area: left, top, right, bottom in pixels; right and bottom are behind the last.
        text: in one line.
        color: of the rectangle.
        size: height of the letters in pixels.
    """
    left, top, right, bottom = area
    draw.rectangle((left, top, right - 1, bottom - 1), fill=color)
    is_bright = 0.3 * color[0] + 0.59 * color[1] + 0.11 * color[2] > 116
    center = (left + right) / 2, (top + bottom) / 2
    text_on(draw, center, text, size=size, color=INK if is_bright else PAPER, anchor="mm")


def _tag_texts(classes: ClassNames | None, label: int, score: float | None, size: int) -> list[str]:
    """Return the texts that a tag may have, longest first."""
    texts = [] if score is None else [f"{score:.2f}"]
    if classes is None:
        return texts
    name = class_label(label, classes, size=size, room=12 * size)
    return [" ".join([name, *texts]), *texts]


def _first_place(
    texts: Sequence[str],
    box: NDArray[np.float64],
    size_wh: tuple[int, int],
    size: int,
    taken: NDArray[np.float64],
    others: NDArray[np.float64],
) -> tuple[str, list[int]] | None:
    """Return the first text with a free place, and that place: left, top, right, bottom.

    Places are above, below and inside the box; `taken` are those of other tags.
    """
    width, height = size_wh
    for text in texts:
        tag_wh = np.array([text_length(text, size) + 6, size + 4])
        # wider than its box, a tag would seem to belong to the neighbor; and it never hides most
        # of the box
        is_too_wide = tag_wh[0] > max(1.3 * (box[2] - box[0]), 0)
        if is_too_wide or tag_wh[1] > 0.6 * (box[3] - box[1]) or (tag_wh > size_wh).any():
            continue
        left = np.clip(round(box[0]) - 1, 0, width - tag_wh[0])
        above, below = round(box[1]) - tag_wh[1], round(box[3])
        inside = min(max(round(box[1]), 0) + 1, height - tag_wh[1])
        for top, may_cover in ((above, False), (below, False), (inside, True)):
            area = np.array([left, top, left + tag_wh[0], top + tag_wh[1]])
            if top < 0 or area[3] > height or overlaps(area, taken):
                continue
            if may_cover or not overlaps(area, others):
                return text, area.tolist()
    return None


def overlaps(area: NDArray[np.int64], areas: NDArray[np.float64]) -> bool:
    """Return True if an area [4] (left, top, right, bottom) has a pixel in common with one of N.

    areas: [N, 4].
    """
    return bool(((area[:2] < areas[:, 2:]) & (area[2:] > areas[:, :2])).all(axis=1).any())
