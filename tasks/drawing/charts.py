"""Images of a whole evaluation: precision against recall, and average precision by class."""

import numpy as np
from PIL import Image, ImageDraw

from visionloop.tasks.drawing import canvas
from visionloop.tasks.drawing.boxes import class_color
from visionloop.tasks.drawing.canvas import INK, PAPER, class_label, text_on
from visionloop.tasks.drawing.confusion_matrix import draw_confusion

PLOT = 420  # side of the plotting square
LEFT, TOP, LEGEND, BOTTOM = 56, 34, 250, 52  # margins
MOST_NAMED = 12  # classes by name beside the curves; of more, the best and the worst
MOST_BARS = 40
GREY, PALE, LINES = (150, 150, 150), (195, 195, 195), (228, 228, 228)
FINE = 3  # drawn so much larger, then made smaller: smooth curves
BAR, LOOSE_BAR = (44, 100, 160), (190, 210, 232)


def draw_precision_recall(curves, classes):
    """curves: of `DetectionMetric.curves` -> uint8 [H, W, 3]: one curve per class at IoU 0.5, the mean over classes in black.

    AP50 stands in the legend, for the best and the worst six where there are more than twelve
    classes. A class without boxes has no curve.
    """
    precision, recall = curves["precision"], curves["recall"]
    scores, best_first = precision.mean(axis=1), best_to_worst(precision)
    named = outermost(best_first, MOST_NAMED)
    lines = [
        (precision[i], class_color(i) if i in named else PALE, 2 if i in named else 1)
        for i in best_first
    ]
    lines.sort(key=lambda line: line[2])  # names over the grey of the rest
    if len(best_first) > 1:
        lines.append((precision[best_first].mean(axis=0), INK, 3))
    image = Image.new("RGB", (LEFT + PLOT + LEGEND, TOP + PLOT + BOTTOM), PAPER)
    image.paste(_plot(recall, lines), (LEFT, TOP))
    draw = ImageDraw.Draw(image)
    _write_axes(draw)
    rows = [(INK, "all classes", scores[best_first].mean())] if len(best_first) > 1 else []
    rows += [(class_color(i), class_label(i, classes, room=LEGEND - 110), scores[i]) for i in named]
    if len(named) < len(best_first):
        rows.insert(
            1 + MOST_NAMED // 2, (None, f"{len(best_first) - len(named)} classes between", None)
        )
    _write_legend(draw, rows)
    return np.array(image)


def recall_lines(curves, classes):
    """[{"name", "x": recall, "y": precision}] at IoU 0.5: the mean over classes, then each class, the best first.

    curves: of `DetectionMetric.curves`; of more than twelve classes with boxes, the best and the
    worst six.
    """
    precision, recall = curves["precision"], curves["recall"]
    best_first = best_to_worst(precision)
    lines = [("all classes", precision[best_first].mean(axis=0))] if len(best_first) > 1 else []
    lines += [(str(classes[i]), precision[i]) for i in outermost(best_first, MOST_NAMED)]
    return [{"name": name, "x": recall.tolist(), "y": values.tolist()} for name, values in lines]


def best_to_worst(precision):
    """Labels of the classes with boxes by AP50, the best first. precision: [C, 101], nan for a class without."""
    scores = precision.mean(axis=1)
    shown = np.flatnonzero(~np.isnan(scores))
    return shown[np.argsort(-scores[shown], kind="stable")]


def outermost(best_first, most):
    """All of them, or the first and the last `most` / 2."""
    return (
        best_first
        if len(best_first) <= most
        else np.concatenate([best_first[: most // 2], best_first[-(most // 2) :]])
    )


def draw_ap_per_class(per_class, classes):
    """per_class: of `DetectionMetric.per_class` -> uint8 [H, W, 3]: a bar for AP, a paler one behind it for AP50, the number of boxes.

    In the order of classes; of more than 40, the best and the worst twenty by AP. A class without
    boxes has no bar.
    """
    precision = per_class["AP"]
    shown = np.flatnonzero(~np.isnan(precision))
    title = "average precision by class; pale: at IoU 0.5 alone"
    if len(shown) > MOST_BARS:
        title += f"; the best and the worst {MOST_BARS // 2} of {len(shown)} classes"
        best_first = shown[np.argsort(-precision[shown], kind="stable")]
        shown = np.concatenate([best_first[: MOST_BARS // 2], best_first[-(MOST_BARS // 2) :]])
    room, width, height = 170, 360, 22
    image = Image.new("RGB", (room + width + 230, 40 + height * max(len(shown), 1) + 8), PAPER)
    draw = ImageDraw.Draw(image)
    text_on(draw, (room, 8), title)
    for i, label in enumerate(shown):
        top = 34 + height * i
        middle = top + height // 2
        text_on(draw, (room - 8, middle), class_label(label, classes, room=room - 16), anchor="rm")
        for score, color in (
            (1, (244, 244, 244)),
            (per_class["AP50"][label], LOOSE_BAR),
            (precision[label], BAR),
        ):
            if score > 0:
                draw.rectangle((room, top + 3, room + width * score, top + height - 4), fill=color)
        numbers = f"AP {precision[label]:.3f}  AP50 {per_class['AP50'][label]:.3f}  {per_class['boxes'][label]} boxes"
        text_on(draw, (room + width + 8, middle), numbers, anchor="lm")
    if not len(shown):
        text_on(draw, (room, 36), "no boxes to find")
    return np.array(image)


def _plot(recall, lines):
    """The square with the curves of `lines`, (precision, color, width) each, down to 0 where a recall is not reached."""
    side = PLOT * FINE
    image = Image.new("RGB", (side, side), PAPER)
    draw = ImageDraw.Draw(image)
    for i in range(6):
        at = round((side - 1) * i / 5)
        draw.line((0, at, side, at), fill=LINES, width=FINE)
        draw.line((at, 0, at, side), fill=LINES, width=FINE)
    for precision, color, width in lines:
        points = np.stack([recall, 1 - precision], axis=1) * (side - 1)
        draw.line([tuple(point) for point in points], fill=color, width=width * FINE, joint="curve")
    draw.rectangle((0, 0, side - 1, side - 1), outline=GREY, width=FINE)
    return image.resize((PLOT, PLOT), Image.Resampling.BOX)


def _write_axes(draw):
    for i in range(6):
        at = PLOT * i / 5
        text_on(draw, (LEFT + at, TOP + PLOT + 6), f"{i / 5:g}", anchor="ma")
        text_on(draw, (LEFT - 6, TOP + PLOT - at), f"{i / 5:g}", anchor="rm")
    text_on(draw, (LEFT + PLOT / 2, TOP + PLOT + 28), "recall", anchor="ma")
    text_on(draw, (LEFT - 6, TOP - 10), "precision", anchor="lb")


def _write_legend(draw, rows):
    """rows: (color, name, AP50) each; without a color, a remark."""
    left, right = LEFT + PLOT + 20, LEFT + PLOT + LEGEND - 20
    text_on(draw, (right, TOP - 10), "AP50", anchor="rb")
    for i, (color, name, score) in enumerate(rows or [(None, "no boxes to find", None)]):
        middle = TOP + 12 + 22 * i
        if color:
            draw.line((left, middle, left + 22, middle), fill=color, width=4)
            text_on(draw, (right, middle), f"{score:.3f}", anchor="rm")
        text_on(draw, (left + 30, middle), name, anchor="lm", color=INK if color else GREY)


# Images of a whole evaluation: which classes are taken for which, and the overlap class by class.

CLASS_MOST_BARS = 40
NAMES, WIDTH, NUMBERS, HEIGHT, CLASS_TOP = (
    170,
    360,
    290,
    22,
    34,
)  # pixels: columns of a row, its height, and where the first begins
CLASS_BAR, CLASS_LOOSE_BAR, EMPTY_BAR, CLASS_GREY = (
    (44, 100, 160),
    (190, 210, 232),
    (244, 244, 244),
    (150, 150, 150),
)


def draw_pixel_confusion(confusion, classes):
    """confusion: int [K, K] of pixels, rows are the truth -> uint8 [H, W, 3]: in each cell the percent of its row, from 1 on."""
    pixels = confusion.sum(axis=1, keepdims=True)
    percent = np.rint(100 * confusion / np.maximum(pixels, 1)).astype(np.int64)
    return canvas.with_caption(
        draw_confusion(percent, classes), ["numbers: percent of the true pixels of the row"]
    )


def draw_iou_per_class(per_class, classes):
    """per_class: of `SegmentationMetric.per_class` -> uint8 [H, W, 3]: a bar for IoU, a paler one behind it for the accuracy.

    In the order of classes, those that are in no pixel without a bar; of more than 40 with one, the
    best and the worst twenty by IoU.
    """
    union, accuracy = per_class["IoU"], per_class["accuracy"]
    shown, title = np.arange(len(union)), "intersection over union by class; pale: accuracy"
    if len(union) > CLASS_MOST_BARS:
        known = np.flatnonzero(~np.isnan(union))
        best_first = known[np.argsort(-union[known], kind="stable")]
        shown = best_first
        if len(known) > CLASS_MOST_BARS:
            shown = np.concatenate(
                [best_first[: CLASS_MOST_BARS // 2], best_first[-(CLASS_MOST_BARS // 2) :]]
            )
            title += f"; the best and the worst {CLASS_MOST_BARS // 2} of {len(known)} classes"
    image = Image.new(
        "RGB", (NAMES + WIDTH + NUMBERS, CLASS_TOP + 14 + HEIGHT * max(len(shown), 1)), canvas.PAPER
    )
    draw = ImageDraw.Draw(image)
    canvas.text_on(draw, (NAMES, 8), title)
    for i, label in enumerate(shown):
        top = CLASS_TOP + HEIGHT * i
        middle = top + HEIGHT // 2
        canvas.text_on(
            draw,
            (NAMES - 8, middle),
            canvas.class_label(label, classes, room=NAMES - 16),
            anchor="rm",
        )
        for score, color in (
            (1, EMPTY_BAR),
            (accuracy[label], CLASS_LOOSE_BAR),
            (union[label], CLASS_BAR),
        ):
            if score > 0:
                draw.rectangle(
                    (NAMES, top + 3, NAMES + WIDTH * score, top + HEIGHT - 4), fill=color
                )
        ink = CLASS_GREY if np.isnan(union[label]) else canvas.INK
        canvas.text_on(
            draw, (NAMES + WIDTH + 8, middle), _numbers(per_class, label), anchor="lm", color=ink
        )
    if not len(shown):
        canvas.text_on(draw, (NAMES, CLASS_TOP + 2), "no pixels with a known class")
    return np.array(image)


def _numbers(per_class, label):
    if np.isnan(per_class["IoU"][label]):
        return "in no image"
    accuracy = per_class["accuracy"][label]
    told = "n/a" if np.isnan(accuracy) else f"{accuracy:.3f}"
    return f"IoU {per_class['IoU'][label]:.3f}  accuracy {told}  {100 * per_class['pixels'][label]:.1f} % of pixels"
