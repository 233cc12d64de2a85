"""Numbers of images and classes of COCO jsons, for the list of data sets. Imports no torch."""

import json
import re
from pathlib import Path
from typing import NamedTuple

from visionloop.bin.web.tables.data_sets import MAX_DESCRIPTION
from visionloop.datasets.io.layout import DataLayoutError
from visionloop.datasets.io.text import PROBED_BYTES, read_ends

LISTS = ("images", "categories")
# "segmentation" with polygons or run lengths; a detector's json may have an empty list
OUTLINE = re.compile(rb'"segmentation"\s*:\s*(\[\s*[\[{\d-]|\{)')


class CocoFile(NamedTuple):
    """Numbers of a COCO json.

    images: 0 for a file that is too large to be read here.
    classes, things: number of categories, and of those that are things; None for such a file.
    has_outlines: whether an annotation has a polygon or run lengths; of a large file, whether there
        is one near its start, middle or end.
    """

    images: int
    classes: int | None
    things: int | None
    has_outlines: bool

    @property
    def is_counted(self) -> bool:
        """Return whether the numbers are known."""
        return self.classes is not None


class CocoFiles:
    """The COCO jsons of a folder; each is read once for all tasks."""

    def __init__(self) -> None:
        self._files: dict[Path, CocoFile] = {}

    def read(self, path: Path) -> CocoFile:
        """Return the numbers of a json. Raises DataLayoutError for one that is not COCO's."""
        if path not in self._files:
            is_large = path.stat().st_size > MAX_DESCRIPTION
            self._files[path] = _probe(path) if is_large else _count(path)
        return self._files[path]


def _probe(path: Path) -> CocoFile:
    """Return what can be seen of a large file without reading it."""
    with open(path, "rb") as file:
        file.seek(path.stat().st_size // 2)
        middle = file.read(PROBED_BYTES)
    has_outlines = any(OUTLINE.search(part) for part in (read_ends(path), middle))
    return CocoFile(0, None, None, has_outlines)


def _count(path: Path) -> CocoFile:
    """Return the numbers of a small file."""
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataLayoutError(path, f"not a json file ({error})") from None
    values = [content.get(key) for key in LISTS] if isinstance(content, dict) else []
    lists = [rows for rows in values if isinstance(rows, list)]
    if len(lists) < len(LISTS):
        raise DataLayoutError(path, f"not a COCO json, which has the lists {', '.join(LISTS)}")
    images, categories = lists
    flags = [row.get("isthing") for row in categories if isinstance(row, dict)]
    are_marked = any(flag is not None for flag in flags)
    things = sum(flag == 1 for flag in flags) if are_marked else len(categories)
    annotations = content.get("annotations")
    has_outlines = isinstance(annotations, list) and any(
        isinstance(row, dict) and bool(row.get("segmentation")) for row in annotations
    )
    return CocoFile(len(images), len(categories), things, has_outlines)
