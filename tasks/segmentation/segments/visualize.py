"""Drawings of instance and panoptic segmentation: training batches, samples, predictions."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from visionloop.datasets.segmentation.transforms import scaled_sides
from visionloop.engine.batch import Batch
from visionloop.engine.types import Predictions
from visionloop.metrics.detection_confusion import BACKGROUND, DRAWING_SCORE
from visionloop.tasks.drawing.canvas import PLAIN, RIGHT, fit_to, grid, with_caption
from visionloop.tasks.drawing.charts import (
    draw_ap_per_class,
    draw_pq_per_class,
    draw_precision_recall,
)
from visionloop.tasks.drawing.confusion_matrix import draw_confusion
from visionloop.tasks.drawing.legend import (
    IGNORED_ENTRY,
    NARROWEST,
    LegendEntry,
    class_entries,
    percent,
    with_entries,
)
from visionloop.tasks.segmentation.drawing import (
    GAP,
    MAX_DRAWING_SIDE,
    MAX_TRAINING_IMAGES,
    MIN_DRAWING_SIDE,
    PART_SIDE,
    SIDE,
    Pixels,
    to_array,
)
from visionloop.tasks.segmentation.segments.mistakes import (
    EXTRA,
    MISSED,
    draw_mistakes,
    match_image,
)
from visionloop.tasks.segmentation.segments.overlay import overlay_segments
from visionloop.tasks.segmentation.segments.regions import (
    Annotations,
    Segments,
    fit_segments,
    positions,
    regions_of_layers,
)

SAMPLE_WORDS = ("above: image, mistakes", "below: ground truth, prediction")


def draw_batch(
    batch: Batch, classes: Sequence[str], colors: Pixels, is_thing: Sequence[bool]
) -> Pixels:
    """Draw a training batch with its segments, and what is in these images below.

    Args:
        batch: of `collate`.
        classes: names in order of id.
        colors: uint8 [K, 3].
        is_thing: for each class.

    Returns:
        uint8 [H, W, 3].
    """
    keys = ("pixel_values", "layers", "segments", "labels", "ignored")
    tiles, counts = [], np.zeros((2, len(classes)), dtype=np.int64)
    num_pixels, num_ignored = 0, 0
    images = islice(zip(*(batch[key] for key in keys), strict=True), MAX_TRAINING_IMAGES)
    for pixel_values, layers, segments, labels, ignored in images:
        image = fit_to(to_array(pixel_values), longest=SIDE)
        drawn_hw = image.shape[0], image.shape[1]
        drawn = Segments(
            regions_of_layers(layers, segments, drawn_hw),
            labels.cpu().numpy(),
            np.zeros(len(labels), dtype=bool),
        )
        rows, columns = positions((ignored.shape[0], ignored.shape[1]), drawn_hw)
        is_ignored = ignored.cpu().numpy()[np.ix_(rows, columns)]
        image[is_ignored] //= 3
        counts += count_classes(drawn, len(classes))
        num_pixels, num_ignored = num_pixels + is_ignored.size, num_ignored + is_ignored.sum()
        tiles.append(overlay_segments(image, drawn, classes, colors))
    sheet = grid(tiles)
    texts = class_texts(counts, num_pixels, is_thing)
    entries = [LegendEntry(None, (f"in these {len(tiles)} images:",))]
    entries += class_entries(texts, classes, colors, max(sheet.shape[1], NARROWEST))
    return with_entries(sheet, [*entries, IGNORED_ENTRY] if num_ignored else entries)


def draw_samples(
    batch: Batch, predictions: Predictions, classes: Sequence[str], colors: Pixels
) -> list[Pixels]:
    """Draw each image of an evaluation batch: image, mistakes, ground truth and prediction.

    Args:
        batch: of `collate_eval`, with "ground_truth".
        predictions: of `predict`; instances with a score from 0.4 on are drawn.
        classes: names in order of id.
        colors: uint8 [K, 3].

    Returns:
        One uint8 [h, w, 3] for each image, at most 640 px wide.
    """
    drawings = []
    every_image = split_predictions(predictions, DRAWING_SCORE)
    for pixel_values, size, truth, predicted in zip(
        batch["pixel_values"],
        batch["sizes"].tolist(),
        batch["ground_truth"],
        every_image,
        strict=True,
    ):
        image = fit_to(without_padding(to_array(pixel_values), size), longest=PART_SIDE)
        drawings.append(draw_comparison(image, size, truth, predicted, classes, colors))
    return drawings


def draw_comparison(
    image: Pixels,
    size_hw: Sequence[int],
    ground_truth: Annotations,
    predictions: Annotations,
    classes: Sequence[str],
    colors: Pixels,
) -> Pixels:
    """Draw the image and its mistakes, below ground truth and prediction, and their numbers.

    Args:
        image: uint8 [h, w, 3].
        size_hw: of the image file, to which the annotations belong.
        ground_truth: see `match_image` in mistakes.py.
        predictions: of `split_predictions`.
        classes: names in order of id.
        colors: uint8 [K, 3].

    Returns:
        uint8 [H, W, 3].
    """
    full_hw, drawn_hw = (size_hw[0], size_hw[1]), (image.shape[0], image.shape[1])
    truth, predicted = (fit_segments(one, full_hw, drawn_hw) for one in (ground_truth, predictions))
    is_missed, is_extra = match_image(ground_truth, predictions, full_hw, len(classes))
    ignored = truth.painted(truth.crowd, drawn_hw)
    if "segment_map" in ground_truth:  # void
        ignored |= ~truth.painted(np.ones(len(truth.labels), dtype=bool), drawn_hw)
    above = image, draw_mistakes(image, truth, predicted, (is_missed, is_extra), ignored)
    below = [overlay_segments(image, one, classes, colors) for one in (truth, predicted)]
    column_gap = np.full((len(image), GAP, 3), 255, dtype=np.uint8)
    row_gap = np.full((GAP, 2 * image.shape[1] + GAP, 3), 255, dtype=np.uint8)
    parts = [np.concatenate([left, column_gap, right], axis=1) for left, right in (above, below)]
    found = int((~is_missed & ~truth.crowd).sum())
    missed, extra = int(is_missed.sum()), int(is_extra.sum())
    line = f"{found} TP, {missed} FN, {extra} FP at IoU 0.5"
    color = PLAIN if missed or extra else RIGHT
    drawn = with_caption(np.concatenate([parts[0], row_gap, parts[1]]), [line], color=color)
    return with_entries(drawn, sample_entries(drawn, truth, predicted, classes, colors))


def draw_prediction(
    image: Pixels,
    size_hw: tuple[int, int],
    predictions: Annotations,
    classes: Sequence[str],
    colors: Pixels,
    is_thing: Sequence[bool],
) -> Pixels:
    """Draw predicted segments over an image; below, the number of objects and the share of stuff.

    Args:
        image: uint8 [h, w, 3], perhaps of a reduced size.
        size_hw: height and width of the file, to which the predictions belong.
        predictions: of this image, see `split_predictions`.
        classes: names in order of id.
        colors: uint8 [K, 3].
        is_thing: for each class.

    Returns:
        uint8 [h, w, 3]; the longer side becomes 640 to 1600 pixels, without the legend.
    """
    longest = int(np.clip(max(size_hw), MIN_DRAWING_SIDE, MAX_DRAWING_SIDE))
    resized = fit_to(image, longest=longest)
    segments = fit_segments(predictions, size_hw, (resized.shape[0], resized.shape[1]))
    drawn = overlay_segments(resized, segments, classes, colors)
    counts = count_classes(segments, len(classes))
    texts = class_texts(counts, resized.shape[0] * resized.shape[1], is_thing)
    entries = class_entries(texts, classes, colors, max(drawn.shape[1], NARROWEST))
    return with_entries(drawn, entries or [LegendEntry(None, ("no segment",))])


def draw_panoptic_scores(
    confusion: NDArray[np.int64],
    per_class: Mapping[str, NDArray[np.float64]],
    classes: Sequence[str],
) -> dict[str, Pixels]:
    """Draw the confusion matrix of segments and panoptic quality by class.

    Args:
        confusion: int64 [K + 1, K + 1], of `PanopticQualityMetric.confusion`.
        per_class: of `PanopticQualityMetric.per_class`.
        classes: names in order of id.

    Returns:
        {tag: uint8 [H, W, 3]}.
    """
    return {
        "panoptic_quality": draw_pq_per_class(per_class, classes),
        "confusion": draw_confusion(confusion, [*classes, BACKGROUND]),
    }


def draw_instance_scores(
    curves: Mapping[str, NDArray[np.float64]],
    confusion: NDArray[np.int64],
    per_class: Mapping[str, NDArray[np.float64]],
    classes: Sequence[str],
) -> dict[str, Pixels]:
    """Draw precision against recall, average precision by class, and the confusion matrix.

    Args:
        curves: of `MaskAveragePrecision.curves`.
        confusion: int64 [K + 1, K + 1], of `count_confusion` in metrics/detection_confusion.py.
        per_class: of `MaskAveragePrecision.per_class`.
        classes: names in order of id.

    Returns:
        {tag: uint8 [H, W, 3]}.
    """
    return {
        "precision_recall": draw_precision_recall(curves, classes),
        "average_precision": draw_ap_per_class(per_class, classes, objects="segments"),
        "confusion": draw_confusion(confusion, [*classes, BACKGROUND]),
    }


def split_predictions(predictions: Predictions, score: float = 0.0) -> Iterator[Annotations]:
    """Yield the predictions of each image: "rles" or "segment_map", "labels", "scores".

    Args:
        predictions: of `predict`.
        score: instances with a lower one are left out; a segment map stays as it is.
    """
    key, name = (
        ("segment_maps", "segment_map") if "segment_maps" in predictions else ("rles", "rles")
    )
    for masks, labels, scores in zip(
        predictions[key], predictions["labels"], predictions["scores"], strict=True
    ):
        labels, scores = labels.cpu().numpy(), scores.float().cpu().numpy()
        if key == "rles":
            kept = np.flatnonzero(scores >= score)
            masks, labels, scores = [masks[i] for i in kept], labels[kept], scores[kept]
        yield {name: masks, "labels": labels, "scores": scores}


def without_padding(image: Pixels, size_hw: Sequence[int]) -> Pixels:
    """Cut a padded square, uint8 [S, S, 3], to the part with the resized image.

    size_hw: height and width of the file.
    """
    height, width = scaled_sides(size_hw[0], size_hw[1], image.shape[0] / max(size_hw))
    return image[:height, :width]


def count_classes(segments: Segments, num_classes: int) -> NDArray[np.int64]:
    """Return the number of segments and of their pixels in the drawing by class, int64 [2, K]."""
    pixels = np.bincount(segments.labels, segments.areas, minlength=num_classes)
    return np.stack([np.bincount(segments.labels, minlength=num_classes), pixels.astype(np.int64)])


def class_texts(
    counts: NDArray[np.int64], num_pixels: int, is_thing: Sequence[bool]
) -> dict[int, tuple[str, ...]]:
    """Return what a legend says of each class: things by number, then stuff by its share of pixels.

    Args:
        counts: int64 [2, K], of `count_classes`.
        num_pixels: of all images.
        is_thing: for each class.
    """
    things = np.asarray(is_thing, dtype=bool)
    objects, pixels = np.where(things, counts[0], 0), np.where(things, 0, counts[1])
    texts: dict[int, tuple[str, ...]] = {
        int(i): (str(objects[i]),) for i in np.argsort(-objects, kind="stable") if objects[i]
    }
    for i in np.argsort(-pixels, kind="stable"):
        if pixels[i]:
            texts[int(i)] = (percent(pixels[i] / num_pixels),)
    return texts


def sample_entries(
    drawn: Pixels,
    truth: Segments,
    predicted: Segments,
    classes: Sequence[str],
    colors: Pixels,
) -> list[LegendEntry]:
    """Return the legend of a sample: the parts, the colors of mistakes and the classes."""
    entries = [LegendEntry(None, (word,)) for word in SAMPLE_WORDS]
    entries += [LegendEntry(MISSED, ("missed (FN)",)), LegendEntry(EXTRA, ("extra (FP)",))]
    areas = sum(count_classes(one, len(classes))[1] for one in (truth, predicted))
    largest_first = np.argsort(-np.asarray(areas), kind="stable")
    texts: dict[int, tuple[str, ...]] = {int(i): () for i in largest_first if areas[i]}
    return entries + class_entries(texts, classes, colors, max(drawn.shape[1], NARROWEST))
