"""Checks of a data folder of images with segments: all problems of all splits at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from tqdm import tqdm

from visionloop.datasets.io.layout import shorten
from visionloop.datasets.segments.index import Kind, SegmentsIndex
from visionloop.datasets.segments.layout import inspect_segments_split, require_segments_split
from visionloop.datasets.segments.problems import nothing_to_score, nothing_to_train
from visionloop.engine.types import JsonObject
from visionloop.tasks.checks import add_problem, inspect_splits
from visionloop.tasks.segmentation.checks import check_images, check_other_splits, percent
from visionloop.tasks.segmentation.segments.counts import SegmentCounts, count_segments
from visionloop.tasks.segmentation.segments.data import LAYOUT, NO_VALIDATION
from visionloop.tasks.splits import require_data

FEW = 10  # segments of a class below which a score for it means little
MANY_TINY = 0.2  # share of segments below a patch from which on a larger input pays
LARGEST_ZOOM = 1.5  # images that are enlarged further show nothing new
# share of the pixels in void, in crowds or in several segments that is worth a warning
MOSTLY = 0.5
# share of the outlines whose area may differ from their pixels: COCO's polygons have 1 %
USUAL_AREAS = 0.05


@dataclass(frozen=True)
class ModelInput:
    """Input and output of a model, as far as the checks need them.

    Attributes:
        image_size: side of its input in pixels.
        patch_size: side of a patch in pixels.
        num_queries: segments that it can predict in an image.
    """

    image_size: int
    patch_size: int
    num_queries: int


def check_segments_data(
    data: str | None, val_split: float, kind: Kind, model: ModelInput
) -> JsonObject:
    """Check a data folder of images with segments. Reads all files, and writes nothing.

    Args:
        data: the data folder.
        val_split: share of the training images that is set aside for validation.
        kind: "instance" or "panoptic".
        model: for the sizes of segments and their number.

    Returns:
        A report, see tasks/checks.py: "classes" is {name: segments in train that are no crowds};
        "lines" are the number of segments per image, shares of pixels and the sizes of segments.
    """
    data = require_data(data, LAYOUT[kind])
    report: JsonObject = {"errors": [], "warnings": [], "classes": {}, "lines": []}
    indexes = inspect_splits(
        data,
        val_split,
        report,
        inspect=lambda split, classes: inspect_segments_split(data, split, kind, classes),
        require=partial(require_segments_split, data, kind=kind),
        missing=NO_VALIDATION[kind],
    )
    are_indexed = not report["errors"]  # otherwise segments may be missing for that reason alone
    sizes_hw = check_images(
        indexes,
        report,
        "outlines" if any(index.outlines is not None for index in indexes.values()) else "masks",
        skip_missing=True,
    )
    counts = {}
    total = sum(map(len, indexes.values()))
    with tqdm(total=total, desc="reading segments", unit="image", disable=None, leave=False) as bar:
        for split, index in indexes.items():
            counts[split] = count_segments(
                index, sizes_hw[split], report, bar.update, all_entries=are_indexed
            )
    for split, index in indexes.items():
        _check_pixels(split, index, counts[split], report)
        _check_stuff(split, index, counts[split], report)
        _check_areas(split, index, counts[split], report)
        _check_queries(split, index, counts[split], model.num_queries, report)
    if are_indexed:
        _check_nothing(indexes, counts, report)
    if "train" in indexes:
        _describe(indexes["train"], counts["train"], report)
        if are_indexed and all(
            len(counts[split].images) == len(indexes[split]) for split in counts
        ):
            _check_classes(indexes, counts, report)
        _check_sizes(indexes["train"], counts["train"], model, report)
    return report


def _check_pixels(
    split: str, index: SegmentsIndex, counts: SegmentCounts, report: JsonObject
) -> None:
    """Report images without any segment, and what most pixels of a split are."""
    pixels = max(1, counts.total("all"))
    if index.kind == "panoptic":
        empty = [row for row, image in counts.images.items() if not image.pixels.any()]
        if empty:
            why = f"{len(empty)} images of {split} have no segment: {_names(index, empty)}"
            add_problem(report, "warnings", index.source, why)
        if (void := counts.total("void") / pixels) > MOSTLY:
            why = f"{percent(void)} of the pixels of {split} are void, of no segment"
            add_problem(report, "warnings", index.source, why)
    covered, crowded = counts.total("covered"), counts.total("crowded")
    if crowded > MOSTLY * (covered + crowded):
        why = f"{percent(crowded / (covered + crowded))} of the pixels of segments are of crowds"
        hint = "never trained on and ignored in scores"
        if index.class_file is not None:
            hint += "; pixels of a thing with the object number 0 are a crowd"
        add_problem(report, "warnings", index.source, f"{split}: {why}, {hint}")
    if counts.total("repeated") > MOSTLY * max(1, covered):
        why = f"{percent(counts.total('repeated') / covered)} of the pixels of segments have "
        add_problem(
            report,
            "warnings",
            index.source,
            f"{split}: {why}several; are objects annotated twice?",
        )


def _check_stuff(
    split: str, index: SegmentsIndex, counts: SegmentCounts, report: JsonObject
) -> None:
    """Report images with several segments of a stuff class, which is one segment for a model."""
    is_stuff = ~np.array(index.is_thing, dtype=np.bool_)
    several: dict[int, set[str]] = {}
    for row, image in counts.images.items():
        labels = image.labels[~image.crowd & is_stuff[image.labels]]
        repeated = np.flatnonzero(np.bincount(labels, minlength=len(is_stuff)) > 1)
        if len(repeated):
            several[row] = {index.classes[label] for label in repeated.tolist()}
    if several:
        names = shorten(sorted(set().union(*several.values())))
        why = f"{len(several)} images of {split} have several segments of a stuff class ({names}): "
        advice = "a model predicts one of each; join them"
        add_problem(
            report, "warnings", index.source, f"{why}{_names(index, list(several))}; {advice}"
        )


def _check_areas(
    split: str, index: SegmentsIndex, counts: SegmentCounts, report: JsonObject
) -> None:
    """Report entries of a json without pixels, and areas that are not the number of pixels.

    A polygon's area may differ from the number of its pixels by half of its outline.
    """
    empty, different, first = [], 0, ""
    total = 0
    for row, image in counts.images.items():
        has_pixels = image.pixels > 0
        if not has_pixels.all():
            empty.append(row)
        tolerance = 2 * np.sqrt(image.pixels) if index.outlines is not None else 0
        is_wrong = np.abs(image.areas - image.pixels) > tolerance
        is_wrong &= has_pixels & (image.areas > 0)
        total += len(image.pixels)
        different += int(is_wrong.sum())
        if is_wrong.any() and not first:
            k = int(is_wrong.argmax())
            first = f"in {index.name(row)} {image.areas[k]:g} and {image.pixels[k]}"
    if empty:
        number = sum(int((counts.images[row].pixels == 0).sum()) for row in empty)
        names = _names(index, empty)
        why = f"{number} of {total} segments of {split} have no pixel: {names}; they are left out"
        add_problem(report, "warnings", index.source, why)
    if different > (USUAL_AREAS * total if index.outlines is not None else 0):
        use = "scores by size" if index.kind == "instance" else "PQ"
        why = f"the area of {different} of {total} segments of {split} is not their number of "
        add_problem(
            report,
            "warnings",
            index.source,
            f"{why}pixels, first {first}; {use} takes the area from the file",
        )


def _check_queries(
    split: str, index: SegmentsIndex, counts: SegmentCounts, num_queries: int, report: JsonObject
) -> None:
    """Report images with more segments than a model can predict."""
    per_image = counts.per_image()
    above = int((per_image > num_queries).sum())
    if above:
        why = f"{above} of {len(index)} images of {split} have more segments than the model has "
        why += f"queries ({num_queries}): {per_image.max()} at most, and some are "
        advice = f"not learned; consider --num-queries {per_image.max()}"
        why += advice if split == "train" else "not predicted"
        add_problem(report, "warnings", index.source, why)


def _check_nothing(
    indexes: Mapping[str, SegmentsIndex],
    counts: Mapping[str, SegmentCounts],
    report: JsonObject,
) -> None:
    """Report splits without anything to learn or to score."""
    for split, explain in (("train", nothing_to_train), ("val", nothing_to_score)):
        if split not in indexes or counts[split].per_class().any():
            continue
        index = indexes[split]
        if len(counts[split].images) == len(index):  # all could be read
            why = explain(index) or f"no pixel of {split} belongs to a segment that is no crowd"
            add_problem(report, "errors", index.source, why)


def _describe(train: SegmentsIndex, counts: SegmentCounts, report: JsonObject) -> None:
    """Add the segments of each class, and lines about segments and pixels."""
    per_image, per_class = counts.per_image(), counts.per_class()
    report["classes"] = dict(zip(train.classes, per_class.tolist(), strict=True))
    if not len(per_image):
        return
    crowds = sum(int(image.crowd.sum()) for image in counts.images.values())
    report["lines"].append(
        f"{len(train)} images in train, {int((per_image == 0).sum())} of them without segments; "
        f"{per_image.sum()} segments, {per_image.mean():.1f} per image, {per_image.max()} at most; "
        f"{crowds} crowds"
    )
    pixels, covered = counts.total("all"), counts.total("covered")
    shares = [f"{percent(covered / pixels)} in segments"]
    if train.outlines is not None:
        shares.append(f"{percent(counts.total('repeated') / pixels)} in several")
    shares.append(f"{percent(counts.total('crowded') / pixels)} in crowds")
    if train.kind == "panoptic":
        shares.append(f"{percent(counts.total('void') / pixels)} void")
    report["lines"].append(f"pixels in train: {', '.join(shares)}")


def _check_classes(
    indexes: Mapping[str, SegmentsIndex],
    counts: Mapping[str, SegmentCounts],
    report: JsonObject,
) -> None:
    """Report classes without segments or with few, and those that splits do not share."""
    train, present = indexes["train"], {split: each.per_class() for split, each in counts.items()}
    rows = list(zip(train.classes, present["train"].tolist(), strict=True))
    absent = [name for name, count in rows if not count]
    if absent and train.class_file is not None:  # of a json they are reported already
        why = f"no segments of {len(absent)} of {len(rows)} classes: {shorten(absent)}"
        add_problem(report, "warnings", train.source, why)
    few = [f"{count} of {name}" for name, count in rows if 0 < count < FEW]
    if few:
        why = f"few segments: {shorten(few)}; a class should have at least {FEW}"
        add_problem(report, "warnings", train.source, why)
    check_other_splits(indexes, train.classes, present, "segment", report)


def _check_sizes(
    train: SegmentsIndex, counts: SegmentCounts, model: ModelInput, report: JsonObject
) -> None:
    """Report the share of segments that are smaller than a patch of the network's input."""
    sides = counts.sides(model.image_size)
    if not len(sides):
        return
    tiny = (sides < model.patch_size).mean()
    patch = f"{model.patch_size} x {model.patch_size} px"
    report["lines"].append(
        f"segments at {model.image_size} px: {percent(tiny)} smaller than a patch ({patch})"
    )
    if tiny <= MANY_TINY:
        return
    patches = model.image_size / np.quantile(sides, MANY_TINY)
    larger = model.patch_size * int(np.ceil(patches))
    median_side = np.median([image.longer_side for image in counts.images.values()])
    advice = (
        f"consider --image-size {larger}"
        if larger <= LARGEST_ZOOM * median_side
        else "cut the images into smaller ones"
    )
    why = f"{percent(tiny)} of the segments are smaller than a patch ({patch}) at "
    add_problem(
        report, "warnings", train.source, f"{why}{model.image_size} px, hard to segment; {advice}"
    )


def _names(index: SegmentsIndex, rows: Sequence[int]) -> str:
    """Return the names of the first few images."""
    return shorten([index.name(row) for row in rows[:1000]])
