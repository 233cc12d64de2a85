"""Answers that exist already, in a file: read row by row, and which images of the data they are about."""

import json

import numpy as np

from visionloop.datasets.io.json_columns import show
from visionloop.engine.errors import UserError


def predictions_error(path, why):
    """The UserError for a file of `evaluate --predictions`. why: where in it, and what is wrong there."""
    return UserError(
        f"--predictions {path}: {why}", code="bad_predictions", file=str(path), field="predictions"
    )


def read_lines(path):
    """[(position "line 1", object)] of a file of json lines, as `predict` writes it; empty lines are passed over. Raises UserError."""
    rows, number = [], 0
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    rows.append((f"line {number}", json.loads(line)))
    except OSError as error:
        raise predictions_error(path, error.strerror or str(error)) from None
    except (ValueError, RecursionError) as error:
        raise predictions_error(path, f"line {number}: not json ({error})") from None
    return _objects(path, rows)


def read_entries(path):
    """[(position "entry 0", object)] of a json list. Raises UserError."""
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except OSError as error:
        raise predictions_error(path, error.strerror or str(error)) from None
    except (ValueError, RecursionError) as error:
        raise predictions_error(
            path, f"not json ({error}); json lines are read from a name that ends in .jsonl"
        ) from None
    if not isinstance(content, list):
        raise predictions_error(path, f"holds {show(content)}, expected a list of answers")
    return _objects(path, [(f"entry {i}", entry) for i, entry in enumerate(content)])


def find_images(files, names):
    """int64 [N]: the position in `names` of each file, -1 where there is none, -2 where it may be several.

    A file is an image when their paths are equal, or when one of them is the end of the other from
    a folder on: `predict` writes paths below its own --input, which may stand above or below the
    data's folder of images.
    """
    whole, ends = {name: i for i, name in enumerate(names)}, {}
    for i, name in enumerate(names):
        for end in list(_ends(name))[1:]:
            ends[end] = -2 if end in ends else i

    def find(file):
        if not isinstance(file, str):
            return -1
        hits = (whole[end] for end in _ends(file) if end in whole)
        return next(hits, ends.get(file, -1))

    return np.array([find(file) for file in files], dtype=np.int64)


def require_images(path, rows, index):
    """int64 [N]: the image of the index that each of the rows' "file" names. rows: of `read_lines`.

    Raises UserError for the first that is none, and for the first image that is there twice.
    """
    images = find_images(
        [row.get("file") for _, row in rows], [index.name(i) for i in range(len(index))]
    )
    seen = {}
    for (place, row), image in zip(rows, images.tolist(), strict=True):
        if image < 0:
            why = "no image of the data" if image == -1 else "the end of several images' paths"
            raise predictions_error(
                path, f"{place}: file is {show(row.get('file'))}, {why} ({index.folder})"
            )
        if seen.setdefault(image, place) != place:
            raise predictions_error(
                path, f"{place}: file is {show(row['file'])}, which {seen[image]} is about too"
            )
    return images


def one_for_each(path, names, images, index, what):
    """[the file that is about each image of the index]. Raises UserError unless there is one for each, and no other.

    names: of the files below path; images: of `find_images`, for each of them; what: a file is
    called.
    """
    found = {}
    for name, image in zip(names, images.tolist(), strict=True):
        if image < 0:
            why = (
                "no image of the data has this name"
                if image == -1
                else "several images of the data have this name"
            )
            raise predictions_error(path, f"{name}: {why} ({index.folder})")
        if found.setdefault(image, name) != name:
            raise predictions_error(
                path, f"{name}: is about {index.name(image)}, and so is {found[image]}"
            )
    missing = [index.name(i) for i in range(len(index)) if i not in found]
    if missing:
        raise predictions_error(
            path,
            f"{len(missing)} of {len(index)} images have no {what}, the first is {missing[0]}",
        )
    return [found[i] for i in range(len(index))]


def _objects(path, rows):
    for place, row in rows:
        if not isinstance(row, dict):
            raise predictions_error(path, f"{place}: is {show(row)}, expected an object")
    return rows


def _ends(name):
    """a/b/c, b/c, c."""
    parts = name.split("/")
    return ("/".join(parts[i:]) for i in range(len(parts)))
