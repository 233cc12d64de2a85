"""Charts of a whole evaluation: precision against recall, and bars of a score by class."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from visionloop.tasks.drawing.boxes import class_color
from visionloop.tasks.drawing.canvas import INK, PAPER, Color, class_label, text_on, with_caption
from visionloop.tasks.drawing.confusion_matrix import draw_confusion

PLOT = 420  # side of the plotting square, in pixels
LEFT, TOP, LEGEND, BOTTOM = 56, 34, 250, 52  # margins
MOST_NAMED = 12  # classes by name next to the curves; of more, the best and the worst
FINE = 3  # curves are drawn so much larger and then reduced, which makes them smooth
GRAY, PALE, LINES = (150, 150, 150), (195, 195, 195), (228, 228, 228)

MOST_BARS = 40  # of more classes, the best and the worst
NAMES, WIDTH, NUMBERS = 170, 360, 330  # pixels: the columns of a bar chart
ROW, FIRST_ROW = 22, 34  # pixels: height of a row, and the top of the first
BAR, LOOSE_BAR, EMPTY_BAR = (44, 100, 160), (190, 210, 232), (244, 244, 244)


def draw_precision_recall(
    curves: Mapping[str, NDArray[np.float64]], classes: Sequence[str]
) -> NDArray[np.uint8]:
    """Draw precision against recall at IoU 0.5, uint8 [H, W, 3].

    There is one curve per class, and the mean over classes in black. The legend gives AP50, for
    the best and the worst six where there are more than twelve classes. A class without boxes has
    no curve.

    Args:
        curves: of `DetectionMetric.curves`.
        classes: names by label.
    """
    precision, recall = curves["precision"], curves["recall"]
    scores, best_first = precision.mean(axis=1), best_to_worst(precision)
    named = outermost(best_first, MOST_NAMED)
    lines = [
        (precision[i], class_color(i) if i in named else PALE, 2 if i in named else 1)
        for i in best_first
    ]
    lines.sort(key=lambda line: line[2])  # named classes are drawn over the gray ones
    if len(best_first) > 1:
        lines.append((precision[best_first].mean(axis=0), INK, 3))
    image = Image.new("RGB", (LEFT + PLOT + LEGEND, TOP + PLOT + BOTTOM), PAPER)
    image.paste(_plot(recall, lines), (LEFT, TOP))
    draw = ImageDraw.Draw(image)
    _write_axes(draw)
    rows: list[tuple[Color | None, str, float | None]] = [
        (class_color(i), class_label(i, classes, room=LEGEND - 110), scores[i]) for i in named
    ]
    if len(named) < len(best_first):
        between = f"{len(best_first) - len(named)} classes between"
        rows.insert(MOST_NAMED // 2, (None, between, None))
    if len(best_first) > 1:
        rows.insert(0, (INK, "all classes", scores[best_first].mean()))
    _write_legend(draw, rows)
    return np.array(image)


def recall_lines(
    curves: Mapping[str, NDArray[np.float64]], classes: Sequence[str]
) -> list[dict[str, str | list[float]]]:
    """Return [{"name", "x": recall, "y": precision}] at IoU 0.5.

    The mean over classes comes first, then each class, the best first; of more than twelve classes
    with boxes, the best and the worst six.

    Args:
        curves: of `DetectionMetric.curves`.
        classes: names by label.
    """
    precision, recall = curves["precision"], curves["recall"]
    best_first = best_to_worst(precision)
    lines = [("all classes", precision[best_first].mean(axis=0))] if len(best_first) > 1 else []
    lines += [(str(classes[i]), precision[i]) for i in outermost(best_first, MOST_NAMED)]
    return [{"name": name, "x": recall.tolist(), "y": values.tolist()} for name, values in lines]


def best_to_worst(precision: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the labels of the classes with boxes by AP50, the best first.

    Args:
        precision: float [C, 101], nan for a class without boxes.
    """
    scores = precision.mean(axis=1)
    labels = np.flatnonzero(~np.isnan(scores))
    return labels[np.argsort(-scores[labels], kind="stable")]


def outermost(best_first: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return all labels, or of more than `most` the first and the last half of `most`."""
    if len(best_first) <= most:
        return best_first
    return np.concatenate([best_first[: most // 2], best_first[-(most // 2) :]])


def draw_ap_per_class(
    per_class: Mapping[str, NDArray[np.float64]], classes: Sequence[str], objects: str = "boxes"
) -> NDArray[np.uint8]:
    """Draw AP by class, AP50 behind it, as `draw_bars` does.

    Args:
        per_class: of `DetectionMetric.per_class` or `MaskAveragePrecision.per_class`.
        classes: names by label.
        objects: what the ground truth consists of, "boxes" or "segments".
    """

    def describe(label: int) -> str:
        ap, ap50, count = (per_class[column][label] for column in ("AP", "AP50", objects))
        if np.isnan(ap):
            return f"no {objects}"
        return f"AP {ap:.3f}  AP50 {ap50:.3f}  {count} {objects}"

    title = "average precision by class; pale: at IoU 0.5 alone"
    return draw_bars(classes, per_class["AP"], per_class["AP50"], describe, title=title)


def draw_pq_per_class(
    per_class: Mapping[str, NDArray[np.float64]], classes: Sequence[str]
) -> NDArray[np.uint8]:
    """Draw panoptic quality by class, recognition quality behind it, as `draw_bars` does.

    Args:
        per_class: of `PanopticQualityMetric.per_class`.
        classes: names by label.
    """

    def describe(label: int) -> str:
        pq, sq, rq, count = (per_class[key][label] for key in ("PQ", "SQ", "RQ", "segments"))
        if np.isnan(pq):
            return "no segments"
        return f"PQ {pq:.3f}  SQ {sq:.3f}  RQ {rq:.3f}  {count} segments"

    title = "panoptic quality by class; pale: recognition quality"
    return draw_bars(classes, per_class["PQ"], per_class["RQ"], describe, title=title)


def draw_iou_per_class(
    per_class: Mapping[str, NDArray[np.float64]], classes: Sequence[str]
) -> NDArray[np.uint8]:
    """Draw IoU by class, the accuracy behind it, as `draw_bars` does.

    Args:
        per_class: of `SegmentationMetric.per_class`.
        classes: names by label.
    """

    def describe(label: int) -> str:
        iou, accuracy, pixels = (per_class[key][label] for key in ("IoU", "accuracy", "pixels"))
        if np.isnan(iou):
            return "in no image"
        accuracy_text = "n/a" if np.isnan(accuracy) else f"{accuracy:.3f}"
        return f"IoU {iou:.3f}  accuracy {accuracy_text}  {100 * pixels:.1f} % of pixels"

    title = "intersection over union by class; pale: accuracy"
    return draw_bars(classes, per_class["IoU"], per_class["accuracy"], describe, title=title)


def draw_bars(
    classes: Sequence[str],
    scores: NDArray[np.float64],
    loose_scores: NDArray[np.float64],
    describe: Callable[[int], str],
    *,
    title: str,
) -> NDArray[np.uint8]:
    """Draw a bar per class in the order of labels, uint8 [H, W, 3].

    Of more than 40 classes with a score, the best and the worst twenty are drawn, the best first;
    a class without a score has no bar, and is left out where there are more than 40 classes.

    Args:
        classes: names by label.
        scores: float [C] in 0..1, nan for a class without one.
        loose_scores: float [C], a paler bar behind the first.
        describe: label -> the numbers that are written behind the bars.
        title: of the chart.
    """
    labels = np.arange(len(scores))
    if len(labels) > MOST_BARS:
        scored = np.flatnonzero(~np.isnan(scores))
        labels = outermost(scored[np.argsort(-scores[scored], kind="stable")], MOST_BARS)
        if len(labels) < len(scored):
            title += f"; the best and the worst {MOST_BARS // 2} of {len(scored)} classes"
    height = FIRST_ROW + 14 + ROW * max(len(labels), 1)
    image = Image.new("RGB", (NAMES + WIDTH + NUMBERS, height), PAPER)
    draw = ImageDraw.Draw(image)
    text_on(draw, (NAMES, 8), title)
    for i, label in enumerate(labels.tolist()):
        top = FIRST_ROW + ROW * i
        middle = top + ROW // 2
        name = class_label(label, classes, room=NAMES - 16)
        text_on(draw, (NAMES - 8, middle), name, anchor="rm")
        bars = ((1, EMPTY_BAR), (loose_scores[label], LOOSE_BAR), (scores[label], BAR))
        for score, color in bars:
            if score > 0:
                box = (NAMES, top + 3, NAMES + WIDTH * score, top + ROW - 4)
                draw.rectangle(box, fill=color)
        ink = GRAY if np.isnan(scores[label]) else INK
        text_on(draw, (NAMES + WIDTH + 8, middle), describe(label), anchor="lm", color=ink)
    if not len(labels):
        text_on(draw, (NAMES, FIRST_ROW + 2), "no class has a score")
    return np.array(image)


def draw_pixel_confusion(confusion: NDArray[np.int64], classes: Sequence[str]) -> NDArray[np.uint8]:
    """Draw a confusion matrix of pixels, uint8 [H, W, 3], each cell in percent of its row.

    Args:
        confusion: int [K, K], the ground truth in rows.
        classes: names by label.
    """
    pixels = confusion.sum(axis=1, keepdims=True)
    percent = np.rint(100 * confusion / np.maximum(pixels, 1)).astype(np.int64)
    line = "numbers: percent of the ground-truth pixels of the row"
    return with_caption(draw_confusion(percent, classes), [line])


def _plot(
    recall: NDArray[np.float64], lines: Sequence[tuple[NDArray[np.float64], Color, int]]
) -> Image.Image:
    """Draw the square with curves (precision, color, width), at 0 beyond the recall reached."""
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
    draw.rectangle((0, 0, side - 1, side - 1), outline=GRAY, width=FINE)
    return image.resize((PLOT, PLOT), Image.Resampling.BOX)


def _write_axes(draw: ImageDraw.ImageDraw) -> None:
    for i in range(6):
        at = PLOT * i / 5
        text_on(draw, (LEFT + at, TOP + PLOT + 6), f"{i / 5:g}", anchor="ma")
        text_on(draw, (LEFT - 6, TOP + PLOT - at), f"{i / 5:g}", anchor="rm")
    text_on(draw, (LEFT + PLOT / 2, TOP + PLOT + 28), "recall", anchor="ma")
    text_on(draw, (LEFT - 6, TOP - 10), "precision", anchor="lb")


def _write_legend(
    draw: ImageDraw.ImageDraw, rows: Sequence[tuple[Color | None, str, float | None]]
) -> None:
    """Write (color, name, AP50) rows; without a color, a remark."""
    left, right = LEFT + PLOT + 20, LEFT + PLOT + LEGEND - 20
    text_on(draw, (right, TOP - 10), "AP50", anchor="rb")
    for i, (color, name, score) in enumerate(rows or [(None, "nothing in the data", None)]):
        middle = TOP + 12 + 22 * i
        if color:
            draw.line((left, middle, left + 22, middle), fill=color, width=4)
            text_on(draw, (right, middle), f"{score:.3f}", anchor="rm")
        text_on(draw, (left + 30, middle), name, anchor="lm", color=INK if color else GRAY)
