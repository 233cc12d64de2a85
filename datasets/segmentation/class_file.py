"""The `classes.json` of masks: names of the classes, and the meaning of the values in mask files.

    {"classes": ["sky", ...] or {"0": "sky", ...}, "ignore_index": 255, "ids": {"7": 0},
     "colors": {"sky": [r, g, b]}}

Only `classes` is required, and a bare list or {value: name} is read too. In a list the value in a
mask is the position; in an object it is the key, and the class ids 0, 1, ... are in order of key:
{"1": "wall", ...} with "ignore_index": 0 reads files that count from 1.

- `ignore_index` (default: 255; null: none) is the value that is ignored. Any other value without a
  class is an error.
- `ids` are other values: {value: id, name of the class, or null for ignored}, and what is not
  listed is ignored. Or a word: "shift", where 0 is ignored and v means class v - 1 (ADE20K);
  "cityscapes", its label ids of the 19 classes, which need not be listed then.
- `colors`, by name or as a list in order of id, are for drawing, and for masks that are color
  images. `ignore_colors` lists colors that are ignored there, or is "others": all that no class
  has. `palette` decides what counts in palette files: "values" or "colors".
- `things` are names of the classes whose objects are counted, for instance and panoptic
  segmentation.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from visionloop.datasets.io.json_columns import is_text, repeated, show
from visionloop.datasets.io.layout import DataLayoutError, shorten
from visionloop.datasets.segmentation.class_colors import Color, read_color_ids, read_colors
from visionloop.datasets.segmentation.mask_values import (
    CITYSCAPES,
    IGNORED,
    NUM_VALUES,
    is_value,
    read_meaning,
)

MAX_CLASSES = 255  # ids are bytes
KEYS = ("classes", "ignore_index", "ids", "colors", "ignore_colors", "palette", "things")


@dataclass(frozen=True, eq=False)
class ClassFile:
    """Meaning of the values in mask files.

    Attributes:
        path: of the json.
        classes: names in order of id.
        colors: uint8 [K, 3] or None.
        ignore_index: the ignored value, or None.
        table: uint8 [65536], the class id of each value or 255 for ignored.
        is_valid: bool [65536], False for values that are an error.
        color_ids: {(r, g, b): class id or 255} of color masks, empty without colors.
        other_colors: whether all other colors are ignored.
        palette: "values" or "colors" of palette files count; None: values, and colors must not
            contradict them.
        things: names of the classes whose objects are counted, or None.
    """

    path: str
    classes: tuple[str, ...]
    colors: NDArray[np.uint8] | None
    ignore_index: int | None
    table: NDArray[np.uint8]
    is_valid: NDArray[np.bool_]
    color_ids: dict[Color, int]
    other_colors: bool
    palette: str | None
    things: tuple[str, ...] | None = None

    def with_classes(self, classes: Iterable[str]) -> "ClassFile":
        """Return the same file with the ids of other `classes`, matched by name.

        Raises:
            DataLayoutError: for a class that is not among them.
        """
        classes = tuple(classes)
        unknown = [name for name in self.classes if name not in set(classes)]
        if unknown:
            raise DataLayoutError(
                self.path,
                f"class {unknown[0]!r} is not one of the {len(classes)} known classes "
                f"({shorten(classes)})",
            )
        new_ids = np.full(IGNORED + 1, IGNORED, dtype=np.uint8)
        new_ids[: len(self.classes)] = [classes.index(name) for name in self.classes]
        colors = None
        if self.colors is not None and len(classes) == len(self.classes):
            colors = self.colors[[self.classes.index(name) for name in classes]]
        color_ids = {color: int(new_ids[label]) for color, label in self.color_ids.items()}
        return replace(
            self, classes=classes, colors=colors, table=new_ids[self.table], color_ids=color_ids
        )

    @cached_property
    def byte_table(self) -> tuple[bytes, bytes]:
        """The table for bytes.translate, and all valid bytes."""
        valid = np.flatnonzero(self.is_valid[:256]).astype(np.uint8)
        return self.table[:256].tobytes(), valid.tobytes()

    @cached_property
    def sorted_colors(self) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        """Colors as r * 65536 + g * 256 + b, sorted int32 [N], and their class ids uint8 [N]."""
        codes = {
            (red << 16) + (green << 8) + blue: label
            for (red, green, blue), label in self.color_ids.items()
        }
        ids = [codes[code] for code in sorted(codes)]
        return np.array(sorted(codes), dtype=np.int32), np.array(ids, dtype=np.uint8)

    def describe_values(self) -> str:
        """Return the valid values for messages: "0 to 10 and 255 (ignored)"."""
        values = np.flatnonzero(self.is_valid & (self.table != IGNORED)).tolist()
        text = shorten([str(value) for value in values], 8)
        if len(values) > 1 and values[-1] - values[0] == len(values) - 1:
            text = f"{values[0]} to {values[-1]}"
        ignored = np.flatnonzero(self.is_valid & (self.table == IGNORED)).tolist()
        return text + (
            f" and {shorten([str(value) for value in ignored], 3)} (ignored)" if ignored else ""
        )

    def digest(self) -> str:
        """Return the SHA-256 of everything that decides the meaning of a mask."""
        content = json.dumps(
            [self.classes, sorted(self.color_ids.items()), self.other_colors, self.palette]
        )
        return hashlib.sha256(
            content.encode() + self.table.tobytes() + self.is_valid.tobytes()
        ).hexdigest()


def plain_class_file(
    classes: Iterable[str], path: str | os.PathLike[str] = "classes.json"
) -> ClassFile:
    """Return the ClassFile of masks whose values are the class ids, 255 ignored.

    Predicted masks are written with these values.
    """
    return _class_file(os.fspath(path), {"classes": list(classes)})


def read_class_file(path: str | os.PathLike[str]) -> ClassFile:
    """Read a `classes.json`.

    Raises:
        DataLayoutError: one line with the first error.
    """
    path = os.fspath(path)
    try:
        with open(path, "rb") as file:
            content = json.loads(file.read())
    except FileNotFoundError as error:
        expected = 'expected {"classes": ["sky", "road", ..]}, names of the mask values 0, 1, ..'
        raise DataLayoutError(path, f"{error.strerror}; {expected}") from None
    except OSError as error:
        raise DataLayoutError(path, error.strerror or str(error)) from None
    except (ValueError, RecursionError) as error:
        raise DataLayoutError(path, f"not json: {error}") from None
    try:
        return _class_file(path, content)
    except ValueError as error:
        raise DataLayoutError(path, str(error)) from None


def _class_file(path: str, content: object) -> ClassFile:
    if isinstance(content, list) or (
        isinstance(content, dict) and content and all(is_value(key) for key in content)
    ):
        content = {"classes": content}
    if not isinstance(content, dict):
        raise ValueError(f'holds {show(content)}, expected {{"classes": [names]}}')
    unknown = [key for key in content if key not in KEYS]
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}; valid are {', '.join(KEYS)}")
    ids = content.get("ids")
    classes, values = _classes(
        content.get("classes", list(CITYSCAPES) if ids == "cityscapes" else None)
    )
    if ids is not None and values != list(range(len(classes))):
        keys = shorten([str(value) for value in values])
        raise ValueError(
            f'"classes" has the keys {keys}, with "ids" they must be 0 to {len(classes) - 1}'
        )
    meaning, ignored = read_meaning(ids, classes, values)
    ignore_index = content.get("ignore_index", None if IGNORED in meaning else IGNORED)
    if ignore_index is not None:
        _check_ignore_index(ignore_index, meaning, classes)
        ignored = ignored | {ignore_index}
    table, is_valid = _table(meaning, ignored)
    is_valid |= isinstance(ids, dict)  # what is not listed is ignored
    colors = read_colors(content.get("colors"), classes)
    color_ids, other_colors = read_color_ids(colors, content.get("ignore_colors"))
    palette = content.get("palette")
    if palette not in (None, "values", *(["colors"] if color_ids else [])):
        raise ValueError(
            f'"palette" is {show(palette)}, expected "values", or with "colors" also "colors"'
        )
    things = _things(content.get("things"), classes)
    return ClassFile(
        path,
        classes,
        colors,
        ignore_index,
        table,
        is_valid,
        color_ids,
        other_colors,
        palette,
        things,
    )


def _things(names: object, classes: Sequence[str]) -> tuple[str, ...] | None:
    """Return the names of the things, or None without. Raises ValueError."""
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f'"things" is {show(names)}, expected a list of names of classes')
    unknown = [name for name in names if name not in classes]
    if unknown:
        raise ValueError(f'"things" names {unknown[0]!r}, which is no class ({shorten(classes)})')
    return tuple(names)


def _check_ignore_index(
    ignore_index: object, meaning: dict[int, int], classes: Sequence[str]
) -> None:
    """Raise ValueError for an "ignore_index" that is not valid or the value of a class."""
    if not isinstance(ignore_index, int) or not is_value(ignore_index, text=False):
        raise ValueError(
            f'"ignore_index" is {show(ignore_index)}, expected 0 to {NUM_VALUES - 1} or null'
        )
    if ignore_index in meaning:
        raise ValueError(
            f'"ignore_index" {ignore_index} is the value of class '
            f"{classes[meaning[ignore_index]]!r} too"
        )


def _classes(names: object) -> tuple[tuple[str, ...], list[int]]:
    """Return (names, their values in mask files) in order of value."""
    if not isinstance(names, list | dict) or not names:
        raise ValueError(f'"classes" is {show(names)}, expected a list of names or {{value: name}}')
    by_key = dict(enumerate(names)) if isinstance(names, list) else names
    wrong = [key for key in by_key if not is_value(key)]
    if wrong:
        raise ValueError(
            f'"classes" has the key {wrong[0]!r}, expected values of the masks, '
            f"0 to {NUM_VALUES - 1}"
        )
    values = sorted(map(int, by_key))
    if len(values) > MAX_CLASSES:
        raise ValueError(f"{len(values)} classes, at most {MAX_CLASSES} are possible")
    by_value = {int(key): name for key, name in by_key.items()}
    classes = [by_value[value] for value in values]
    for value, name in zip(values, classes, strict=True):
        if not is_text(name):
            raise ValueError(f"the name of class {value} is {show(name)}, expected text")
    for position in repeated(classes):
        raise ValueError(f"two classes have the name {classes[position]!r}")
    return tuple(classes), values


def _table(
    meaning: dict[int, int], ignored: set[int]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return (table, is_valid) of a ClassFile."""
    table = np.full(NUM_VALUES, IGNORED, dtype=np.uint8)
    is_valid = np.zeros(NUM_VALUES, dtype=bool)
    table[list(meaning)] = list(meaning.values())
    is_valid[[*meaning, *ignored]] = True
    return table, is_valid
