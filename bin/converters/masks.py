"""Writer of segmentation data: `images/<split>/x.jpg`, `masks/<split>/x.png`, `classes.json`."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from visionloop.bin.converters.conversion import ConversionReport, OutputFormat, PathLike
from visionloop.bin.converters.entries import Entry, EntrySplit
from visionloop.datasets.io.images import UnreadableImage, read_size
from visionloop.datasets.io.json_columns import show
from visionloop.datasets.io.layout import DataLayoutError

IGNORED = 255
MAX_CLASSES = 255  # ids 0..254

Mask: TypeAlias = NDArray[np.uint8]
DrawMask: TypeAlias = Callable[[Entry, tuple[int, int], ConversionReport], Mask | None]


@dataclass(frozen=True, eq=False)
class MaskSplit(EntrySplit):
    """Images whose masks are drawn one after the other.

    Attributes:
        draw: called with (entry, (height, width), report), returns the mask, uint8 [H, W] with
            class ids and 255 for ignored, or None after it added a problem to the report.
        background_id: value of pixels without annotation.
        colors: {class: [red, green, blue]} of the classes whose color is known, or None.
        regions: number of classes drawn in each image, summed, without `background_id`.
    """

    draw: DrawMask
    background_id: int
    colors: dict[str, list[int]] | None = None
    regions: int = 0


def add_background(names: Iterable[str], background: str) -> tuple[tuple[str, ...], int]:
    """Return (class names in order of id, id of pixels without annotation).

    Args:
        names: of the annotated classes.
        background: class of pixels without annotation, which becomes class 0; "ignore": these
            pixels are ignored.
    """
    if background == "ignore":
        return tuple(names), IGNORED
    return (background, *(name for name in names if name != background)), 0


def write_masks(
    splits: dict[str, MaskSplit], folder: Path, report: ConversionReport
) -> dict[str, MaskSplit]:
    """Write `classes.json` and a gray PNG in `masks/<split>/` for each image.

    Returns:
        {split: MaskSplit} of the images that could be read and drawn.
    """
    written: dict[str, MaskSplit] = {}
    total = sum(map(len, splits.values()))
    with tqdm(total=total, desc="drawing masks", unit="img", disable=None, leave=False) as progress:
        for split, index in splits.items():
            target = folder / "masks" / split
            written[split] = _write_split(index, target, report, progress.update)
    for index in list(written.values())[:1]:  # the splits share their classes
        _write_classes(folder / "classes.json", index)
    return written


def _write_split(
    index: MaskSplit, folder: Path, report: ConversionReport, advance: Callable[[], object]
) -> MaskSplit:
    """Write the masks of a split and return the images that have one.

    advance: called before each image.
    """
    rows, regions = [], 0
    image_of: dict[Path, str] = {}
    for i in range(len(index)):
        advance()
        target = Path(index.name(i)).with_suffix(".png")
        other = image_of.setdefault(target, index.name(i))
        if other != index.name(i):
            why = f"{other} has the same name but for the suffix, and would have the same mask"
            report.add_problem(index.path(i), why)
            continue
        ids = _draw(index, i, report)
        if ids is None:
            continue
        path = folder / target
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(ids).save(path)
        rows.append(i)
        regions += len({*np.unique(ids).tolist()} - {index.background_id, IGNORED})
    return replace(index.subset(rows), regions=regions)


def _draw(index: MaskSplit, i: int, report: ConversionReport) -> Mask | None:
    """Return the mask of image i, or None after adding a problem to the report."""
    try:
        return index.draw(index.entries[i], read_size(index.path(i)), report)
    except UnreadableImage as error:
        report.add_problem(error.path, error.why)
        return None


def _write_classes(path: Path, index: MaskSplit) -> None:
    """Write classes.json."""
    content: dict[str, object] = {"classes": index.classes, "ignore_index": IGNORED}
    if index.colors:
        colors = index.colors
        content["colors"] = {name: colors[name] for name in index.classes if name in colors}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def check_class_count(source: PathLike, classes: Sequence[str]) -> None:
    """Raise DataLayoutError for more classes than a mask of bytes can hold."""
    if len(classes) > MAX_CLASSES:
        why = f"{len(classes)} classes, but masks of 8 bits hold at most {MAX_CLASSES}"
        raise DataLayoutError(source, why)


def stated_size_problem(stated_hw: Sequence[int | None], size_hw: tuple[int, int]) -> str | None:
    """Return the problem of the size that an annotation file states for an image, or None.

    Args:
        stated_hw: (height, width) of the file; None or 0 for unknown.
        size_hw: (height, width) of the image.
    """
    if not all(stated_hw) or tuple(stated_hw) == tuple(size_hw):
        return None
    stated, real = (f"{show(width)} x {show(height)}" for height, width in (stated_hw, size_hw))
    return f"annotated as {stated}, but the image is {real} (width x height, upright)"


def count_regions(index: MaskSplit) -> int:
    """Return the number of annotated regions."""
    return index.regions


MASKS = OutputFormat(
    write_masks,
    count_regions,
    one="annotated region",
    many="regions",
    task="segmentation",
    images="images/{}",
    only_own_images=True,
)
