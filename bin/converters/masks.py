"""Masks of class ids as segmentation reads them: `images/<split>/x.jpg`, `masks/<split>/x.png` and `classes.json`."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from visionloop.bin.converters.conversion import Form
from visionloop.datasets.io.images import UnreadableImage, read_size
from visionloop.datasets.io.layout import DataLayoutError

IGNORED = 255
MOST_CLASSES = 255  # ids 0..254


@dataclass(frozen=True, eq=False)
class MaskSplit:
    """Images whose masks are drawn one after the other.

    folder: of the images; names: their paths relative to it; entries: what is known of each;
    draw(entry, size_hw, findings) gives the mask, uint8 [H, W] with class ids and 255 for ignored,
    or None where something is broken, which it tells the findings; classes: names by id; rest: the
    value of pixels without annotation; colors: {class: [red, green, blue]}, as far as known;
    regions: classes drawn in each image, summed, without `rest`.
    """

    folder: str
    names: list
    entries: list
    draw: Callable
    classes: tuple[str, ...]
    rest: int
    colors: dict | None = None
    regions: int = 0

    def __len__(self):
        return len(self.names)

    def name(self, i):
        return self.names[i]

    def path(self, i):
        return os.path.join(self.folder, self.names[i])

    def subset(self, rows):
        """The same with these images alone, in this order."""
        return replace(
            self, names=[self.names[i] for i in rows], entries=[self.entries[i] for i in rows]
        )


def place_background(names, background):
    """(classes, rest): the classes by id, and the value of pixels that nothing covers.

    background: name of the class that these pixels have, which is then class 0; "ignore": they are
    ignored.
    """
    if background == "ignore":
        return tuple(names), IGNORED
    return (background, *(name for name in names if name != background)), 0


def write_masks(splits, folder, findings):
    """`classes.json`, and `masks/<split>/` with a grey PNG for each image that can be read and drawn: {split: MaskSplit} of those."""
    kept = {}
    with tqdm(
        total=sum(map(len, splits.values())),
        desc="drawing masks",
        unit="pic",
        disable=None,
        leave=False,
    ) as bar:
        for split, index in splits.items():
            rows, regions, written = [], 0, {}
            for i in range(len(index)):
                bar.update()
                target = Path(index.name(i)).with_suffix(".png")
                if written.setdefault(target, index.name(i)) != index.name(i):
                    findings.problem(
                        index.path(i),
                        f"{written[target]} has the same name but for the suffix, and would have the same mask",
                    )
                    continue
                ids = _draw(index, i, findings)
                if ids is None:
                    continue
                path = folder / "masks" / split / target
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(ids).save(path)
                rows.append(i)
                regions += len({*np.unique(ids).tolist()} - {index.rest, IGNORED})
            kept[split] = replace(index.subset(rows), regions=regions)
    for index in list(kept.values())[:1]:  # the splits share their classes
        _write_classes(folder / "classes.json", index)
    return kept


def _draw(index, i, findings):
    """The mask of image i, or None where something is broken."""
    try:
        return index.draw(index.entries[i], read_size(index.path(i)), findings)
    except UnreadableImage as error:
        return findings.problem(error.path, error.why)


def _write_classes(path, index):
    content = {"classes": index.classes, "ignore_index": IGNORED}
    if index.colors:
        content["colors"] = {
            name: index.colors[name] for name in index.classes if name in index.colors
        }
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def refuse_many(source, classes):
    """No more classes than a mask of bytes can tell apart, or DataLayoutError."""
    if len(classes) > MOST_CLASSES:
        raise DataLayoutError(
            source, f"{len(classes)} classes, but masks of 8 bits tell {MOST_CLASSES} apart"
        )


def wrong_stated_size(said_hw, size_hw):
    """What is wrong with the size that an annotation file tells of an image, or None; a side may be None or 0 for unknown."""
    if not all(said_hw) or tuple(said_hw) == tuple(size_hw):
        return None
    said, real = ("{1} x {0}".format(*size) for size in (said_hw, size_hw))
    return f"annotated as {said}, but the image is {real} (width x height, upright)"


def count_regions(index):
    return index.regions


MASKS = Form(
    write_masks,
    count_regions,
    one="annotated region",
    many="regions",
    images="images/{}",
    whole_folders=True,
)
