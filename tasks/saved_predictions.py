"""Predictions in files: parsing row by row, matching rows to the images of the data, writing."""

import json
import os
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from visionloop.datasets.io.json_columns import column, look_up, numbers, show
from visionloop.datasets.io.names import composed, with_slashes
from visionloop.datasets.io.text import NotText, read_text
from visionloop.engine.errors import UserError
from visionloop.engine.types import JsonObject
from visionloop.tasks.splits import AnnotatedIndex, ImageIndex

Row = tuple[str, JsonObject]  # (position in the file, "line 1" or "entry 0", its object)
UNMATCHED, AMBIGUOUS = -1, -2  # positions of `match_images` that are no image


def predictions_error(path: str | Path, why: str) -> UserError:
    """Return the UserError for a file of `evaluate --predictions`. why: position and problem."""
    return UserError(
        f"--predictions {path}: {why}", code="bad_predictions", file=str(path), field="predictions"
    )


def read_lines(path: str | Path) -> list[Row]:
    """Read a file of JSON lines, as `predict` writes it; empty lines are skipped.

    Raises UserError for a file that cannot be read, and for a line that is no JSON object.
    """
    rows, number = [], 0
    try:
        for number, line in enumerate(read_text(path).split("\n"), 1):
            if line.strip():
                rows.append((f"line {number}", json.loads(line)))
    except OSError as error:
        raise predictions_error(path, error.strerror or str(error)) from None
    except NotText as error:
        raise predictions_error(path, str(error)) from None
    except (ValueError, RecursionError) as error:
        raise predictions_error(path, f"line {number}: not json ({error})") from None
    return _require_objects(path, rows)


def read_entries(path: str | Path) -> list[Row]:
    """Read a JSON list. Raises UserError for anything else, and for an entry that is no object."""
    try:
        content = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise predictions_error(path, error.strerror or str(error)) from None
    except (ValueError, RecursionError) as error:
        raise predictions_error(
            path, f"not json ({error}); json lines are read from a name that ends in .jsonl"
        ) from None
    if not isinstance(content, list):
        raise predictions_error(path, f"holds {show(content)}, expected a list of predictions")
    return _require_objects(path, [(f"entry {i}", entry) for i, entry in enumerate(content)])


def match_images(files: Sequence[object], names: Sequence[str]) -> NDArray[np.int64]:
    """Return the position in `names` of each file, int64 [N].

    -1 (UNMATCHED): no image has this name; -2 (AMBIGUOUS): several may.

    A file is an image when their paths are equal, or when one of them is the end of the other from
    a folder on: `predict` writes paths relative to its own --input, which may be above or below the
    data's folder of images.
    """
    names = [composed(name) for name in names]
    index_of = {name: i for i, name in enumerate(names)}
    ends: dict[str, int] = {}
    for i, name in enumerate(names):
        for end in list(_path_ends(name))[1:]:
            ends[end] = AMBIGUOUS if end in ends else i

    def match(file: object) -> int:
        if not isinstance(file, str):
            return UNMATCHED
        file = composed(with_slashes(file))
        hits = (index_of[end] for end in _path_ends(file) if end in index_of)
        return next(hits, ends.get(file, UNMATCHED))

    return np.array([match(file) for file in files], dtype=np.int64)


def require_images(path: str | Path, rows: Sequence[Row], index: ImageIndex) -> NDArray[np.int64]:
    """Return the image of the index that the "file" of each row names, int64 [N].

    rows: of `read_lines`. Raises UserError for the first row that names no image of the data, and
    for the first image that two rows name.
    """
    names = [index.name(i) for i in range(len(index))]
    images = match_images([row.get("file") for _, row in rows], names)
    row_of_image: dict[int, str] = {}
    for (position, row), image in zip(rows, images.tolist(), strict=True):
        file = show(row.get("file"))
        if image < 0:
            why = (
                "no image of the data" if image == UNMATCHED else "the end of several images' paths"
            )
            raise predictions_error(path, f"{position}: file is {file}, {why} ({index.folder})")
        if row_of_image.setdefault(image, position) != position:
            earlier = row_of_image[image]
            raise predictions_error(path, f"{position}: file is {file}, which {earlier} names too")
    return images


def match_entries(
    path: str | Path, rows: Sequence[Row], index: AnnotatedIndex
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the image and the label of each entry of COCO results, int64 [N] both.

    Images and classes are matched by "image_id" and "category_id"; where all entries have
    "file_name" and "category_name", by these: the ids of `predict` are its own.

    Raises UserError for the first entry with an image or a class that the annotations lack.
    """
    entries = [entry for _, entry in rows]
    label_of: dict[Hashable, int]
    if all("file_name" in entry and "category_name" in entry for entry in entries):
        image_key, class_key = "file_name", "category_name"
        names = [index.name(i) for i in range(len(index))]
        images = match_images(column(entries, image_key), names)
        label_of = {key: label for label, key in enumerate(index.classes)}
    else:
        image_key, class_key = "image_id", "category_id"
        row_of: dict[Hashable, int] = {key: row for row, key in enumerate(index.image_ids.tolist())}
        images = look_up(row_of, column(entries, image_key))
        label_of = {key: label for label, key in enumerate(index.category_ids)}
    labels = look_up(label_of, column(entries, class_key))
    raise_first(path, rows, images < 0, image_key, f"no image of {index.source}")
    raise_first(path, rows, labels < 0, class_key, f"no class of {index.source}")
    return images, labels


def read_line_objects(
    path: str | Path, index: AnnotatedIndex, key: str
) -> tuple[list[Row], NDArray[np.int64], NDArray[np.int64]]:
    """Read the objects in the JSON lines that `predict` writes.

    A line about an image that could not be read has none.

    Args:
        path: of the file.
        index: the annotations.
        key: of the objects of a line, e.g. "detections".

    Returns:
        (objects with their position in the file, image int64 [N] and label int64 [N] of each).

    Raises:
        UserError: for the first line or object that does not fit.
    """
    lines = read_lines(path)
    rows: list[Row] = []
    images: list[int] = []
    for (position, line), image in zip(
        lines, require_images(path, lines, index).tolist(), strict=True
    ):
        check_size(path, position, line, index.sizes_hw[image].tolist())
        objects = line.get(key, [] if "error" in line else None)
        if not isinstance(objects, list) or not all(isinstance(one, dict) for one in objects):
            raise predictions_error(
                path, f"{position}: {key} is {show(objects)}, expected a list of objects"
            )
        rows += [(f"{position}: {key[:-1]} {i}", one) for i, one in enumerate(objects)]
        images += [image] * len(objects)
    label_of: dict[Hashable, int] = {name: label for label, name in enumerate(index.classes)}
    labels = look_up(label_of, column([one for _, one in rows], "label"))
    raise_first(path, rows, labels < 0, "label", f"no class of {index.source}")
    return rows, np.array(images, dtype=np.int64), labels


def check_size(path: str | Path, position: str, line: JsonObject, size_hw: Sequence[int]) -> None:
    """Raise UserError if a line has another image size than the annotations: another image."""
    line_hw = [line.get("height"), line.get("width")]
    if None not in line_hw and all(size_hw) and line_hw != list(size_hw):
        raise predictions_error(
            path,
            f"{position}: height is {show(line_hw[0])} and width {show(line_hw[1])}, "
            f"the annotations say {size_hw[0]} and {size_hw[1]}",
        )


def read_scores(path: str | Path, rows: Sequence[Row]) -> NDArray[np.float64]:
    """Return the "score" of each row, float64 [N]. Raises UserError unless all are finite."""
    scores, is_score = numbers(column([entry for _, entry in rows], "score"))
    raise_first(path, rows, ~is_score, "score", "not a finite number")
    return scores


def raise_first(
    path: str | Path, rows: Sequence[Row], wrong: NDArray[np.bool_], key: str, reason: str
) -> None:
    """Raise UserError for the first row that is `wrong` (bool [N]), with the number of others."""
    if wrong.any():
        position, entry = rows[int(wrong.argmax())]
        more = f" ({wrong.sum()} such entries)" if wrong.sum() > 1 else ""
        raise predictions_error(
            path, f"{position}: {key} is {show(entry.get(key))}, {reason}{more}"
        )


def require_one_file_per_image(
    path: str | Path, names: Sequence[str], images: NDArray[np.int64], index: ImageIndex, kind: str
) -> list[str]:
    """Return the file of each image of the index, in the order of the index.

    Args:
        path: the folder of predictions, for messages.
        names: of the files below it.
        images: int64 [N], of `match_images` for `names`.
        index: the images of the data.
        kind: of the files, for messages, e.g. "mask".

    Raises:
        UserError: a file that is for no image, two for one image, or an image without a file.
    """
    file_of_image: dict[int, str] = {}
    for name, image in zip(names, images.tolist(), strict=True):
        if image < 0:
            count = "no image" if image == UNMATCHED else "more than one image"
            raise predictions_error(
                path, f"{name}: {count} of the data has this name ({index.folder})"
            )
        if file_of_image.setdefault(image, name) != name:
            raise predictions_error(
                path, f"{name}: is for {index.name(image)}, and so is {file_of_image[image]}"
            )
    missing = [index.name(i) for i in range(len(index)) if i not in file_of_image]
    if missing:
        raise predictions_error(
            path,
            f"{len(missing)} of {len(index)} images have no {kind}, the first is {missing[0]}",
        )
    return [file_of_image[i] for i in range(len(index))]


class PngNames:
    """File names with the suffix .png instead of their own.

    It is appended to the name where another file would have the same one.
    """

    def __init__(self, names: Sequence[str]) -> None:
        count = Counter(os.path.splitext(name)[0] for name in names)
        count.update(names)  # a.jpg.jpg beside a.jpg and a.png
        self.shared_stems = {stem for stem, files in count.items() if files > 1}

    def of(self, name: str) -> str:
        """Return the PNG name of an image file."""
        stem = os.path.splitext(name)[0]
        return (name if stem in self.shared_stems else stem) + ".png"


def number_images(files: Sequence[str]) -> list[int]:
    """Return an id for each image, for formats whose images have numbers.

    It is the file name as a number where all names are different numbers (as in COCO), otherwise
    1, 2, .. in this order.
    """
    stems = [Path(file).stem for file in files]
    is_numbered = all(stem.isascii() and stem.isdigit() for stem in stems)
    is_numbered = is_numbered and len(set(map(int, stems))) == len(stems)
    return [int(stem) if is_numbered else i for i, stem in enumerate(stems, 1)]


def write_results(path: str | Path, entries: Iterable[Mapping[str, object]]) -> None:
    """Write a JSON list with an object per line, without holding the entries in memory."""
    with open(path, "w") as file:
        file.write("[")
        for i, entry in enumerate(entries):
            file.write((",\n" if i else "\n") + json.dumps(entry))
        file.write("\n]\n")


def _require_objects(path: str | Path, rows: Sequence[tuple[str, object]]) -> list[Row]:
    objects: list[Row] = []
    for position, row in rows:
        if not isinstance(row, dict):
            raise predictions_error(path, f"{position}: is {show(row)}, expected an object")
        objects.append((position, row))
    return objects


def _path_ends(name: str) -> Iterator[str]:
    """Yield a/b/c, b/c, c of a/b/c."""
    parts = name.split("/")
    return ("/".join(parts[i:]) for i in range(len(parts)))
