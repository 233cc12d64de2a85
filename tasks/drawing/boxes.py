"""Boxes on images: a colour per class, a tag with name and score where there is room, a legend for the rest."""

import colorsys

import numpy as np
from PIL import Image, ImageDraw

from visionloop.tasks.drawing.canvas import INK, PAPER, class_label, font_for, load_fonts, text_on

# told apart on bright and on dark ground; further classes take turns around the colour wheel
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
EDGE = (20, 20, 20)  # beside a colour, so that it shows on any ground
GOLDEN_TURN = 0.618034
MOST_NAMES = 12  # in a legend
SPARSE, MANY = (
    25,
    100,
)  # up to so many boxes a tag may lie on a neighbour; from so many on frames are thinner
MOST_COVERED = 1 / 8  # of the image, by all tags together


def class_color(i):
    """The colour (r, g, b) of class i, the same in every image and for any number of classes."""
    if i < len(COLORS):
        return COLORS[i]
    lightness = (0.62, 0.75, 0.55)[i % 3]
    return tuple(
        round(255 * part) for part in colorsys.hls_to_rgb(i * GOLDEN_TURN % 1, lightness, 0.85)
    )


def draw_boxes(image, boxes, labels, classes, scores=None, *, dashed=None, names=True):
    """The image with its boxes, cut at its border; the best on top, where there are no scores the smallest.

    image: uint8 [H, W, 3]; boxes: [N, 4] xyxy in its pixels; labels: int [N]; classes: names by
    label; scores: [N] in 0..1; dashed: bool [N], frames with gaps; names: False leaves the class to
    the colour and a legend. A tag loses its name, then is left out, where the box is small or the
    place is taken.
    """
    pil_image = Image.fromarray(image)
    draw = ImageDraw.Draw(pil_image)
    boxes, labels = (
        np.asarray(boxes, dtype=np.float64).reshape(-1, 4),
        np.asarray(labels, dtype=np.int64),
    )
    boxes = boxes.clip(0, np.tile(pil_image.size, 2))
    sides = boxes[:, 2:] - boxes[:, :2]
    best_first = np.argsort(
        sides.prod(axis=1) if scores is None else -np.asarray(scores, dtype=np.float64),
        kind="stable",
    )
    best_first = best_first[(sides > 0).all(axis=1)[best_first]]
    thickness = (2 if max(pil_image.size) < 1000 else 3) - (len(boxes) > MANY)
    for i in best_first[::-1]:
        draw_frame(
            draw,
            boxes[i],
            class_color(labels[i]),
            thickness,
            dashed=dashed is not None and dashed[i],
        )
    size = int(np.clip(max(pil_image.size) / 48, 10, 22))
    texts = [
        _tag_texts(
            classes if names else None, labels[i], None if scores is None else scores[i], size
        )
        for i in best_first
    ]
    place_tags(draw, pil_image.size, boxes, texts, best_first, labels, size)
    return np.array(pil_image)


def draw_frame(draw, box, color, thickness, *, dashed=False):
    """One frame `thickness` pixels wide, thinner on a tiny box, with a dark line around it."""
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


def place_tags(draw, size_wh, boxes, texts, order, labels, size):
    """Write one tag per box, in this order, where a text of its own fits; inside the image and never on another tag.

    texts: for each box of `order` what it may say, longest first; size: of the letters.
    """
    taken, room = np.zeros((0, 4)), MOST_COVERED * size_wh[0] * size_wh[1]
    crowded = len(boxes) > SPARSE
    for i, choices in zip(order, texts, strict=True):
        others = np.delete(boxes, i, axis=0) if crowded else boxes[:0]
        place = _first_place(choices, boxes[i], size_wh, size, taken, others)
        if place is None:
            continue
        text, area = place
        room -= (area[2] - area[0]) * (area[3] - area[1])
        if room < 0:
            return
        color = class_color(labels[i])
        draw.rectangle((area[0], area[1], area[2] - 1, area[3] - 1), fill=color)
        bright = 0.3 * color[0] + 0.59 * color[1] + 0.11 * color[2] > 110
        text_on(
            draw,
            ((area[0] + area[2]) / 2, (area[1] + area[3]) / 2),
            text,
            size=size,
            color=INK if bright else PAPER,
            anchor="mm",
        )
        taken = np.concatenate([taken, [area]])


def with_legend(image, labels, classes, *, words=(), counted=True):
    """The image with a white strip below: `words`, then colour, name and number of the most frequent classes among `labels`."""
    size = 12
    counts = np.bincount(np.asarray(labels, dtype=np.int64), minlength=1)
    shown = [int(i) for i in np.argsort(-counts, kind="stable")[:MOST_NAMES] if counts[i]]
    width = image.shape[1]
    entries = [(None, word) for word in words]
    for i in shown:
        name = class_label(i, classes, size=size, room=max(width // 2, 60))
        entries.append((class_color(i), f"{name} {counts[i]}" if counted else name))
    if np.count_nonzero(counts) > len(shown):
        entries.append((None, f"and {np.count_nonzero(counts) - len(shown)} classes more"))
    rows, x = [[]], 6
    for color, text in entries:
        room = round(_width(text, size)) + (20 if color else 4) + 10
        if rows[-1] and x + room > width:
            rows, x = [*rows, []], 6
        rows[-1].append((x, color, text))
        x += room
    height = image.shape[0]
    pil_image = Image.new("RGB", (width, height + 18 * len(rows) + 4), PAPER)
    pil_image.paste(Image.fromarray(image))
    draw = ImageDraw.Draw(pil_image)
    for row, entries in enumerate(rows):
        middle = height + 18 * row + 11
        for x, color, text in entries:
            if color:
                draw.rectangle((x, middle - 6, x + 12, middle + 6), fill=color, outline=EDGE)
            text_on(draw, (x + (18 if color else 0), middle), text, size=size, anchor="lm")
    return np.array(pil_image)


def _width(text, size):
    return (font_for(text, size) or load_fonts(size)[-1]).getlength(text)


def _tag_texts(classes, label, score, size):
    """What a tag may say, longest first."""
    texts = [] if score is None else [f"{score:.2f}"]
    if classes is None:
        return texts
    name = class_label(label, classes, size=size, room=12 * size)
    return [" ".join([name, *texts]), *texts]


def _first_place(texts, box, size_wh, size, taken, others):
    """(text, [left, top, right, bottom]) of the first text with a free place above, below or inside the box; None without."""
    width, height = size_wh
    for text in texts:
        tag_wh = np.array([round(_width(text, size)) + 6, size + 4])
        # wider than its box, a tag would seem to belong to the neighbour; and it never hides most
        # of the box
        if (
            tag_wh[0] > max(1.3 * (box[2] - box[0]), 0)
            or tag_wh[1] > 0.6 * (box[3] - box[1])
            or (tag_wh > size_wh).any()
        ):
            continue
        left = np.clip(round(box[0]) - 1, 0, width - tag_wh[0])
        above, below = round(box[1]) - tag_wh[1], round(box[3])
        inside = min(max(round(box[1]), 0) + 1, height - tag_wh[1])
        for top, may_cover in ((above, False), (below, False), (inside, True)):
            area = np.array([left, top, left + tag_wh[0], top + tag_wh[1]])
            in_image = top >= 0 and area[3] <= height
            if (
                in_image
                and not _overlaps(area, taken)
                and (may_cover or not _overlaps(area, others))
            ):
                return text, area.tolist()
    return None


def _overlaps(area, areas):
    return bool(((area[:2] < areas[:, 2:]) & (area[2:] > areas[:, :2])).all(axis=1).any())
