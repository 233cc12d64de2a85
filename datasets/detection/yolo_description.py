"""The `data.yaml` of a YOLO dataset: names of the classes and folders of the splits."""

import ntpath
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import yaml

from visionloop.datasets.detection.yolo_keypoints import KeypointShape
from visionloop.datasets.io.folders import (
    IMAGE_SUFFIXES,
    no_images,
)
from visionloop.datasets.io.json_columns import is_text, repeated, show
from visionloop.datasets.io.layout import SPLIT_FOLDERS, DataLayoutError, shorten
from visionloop.datasets.io.names import FileFinder, class_name, with_slashes
from visionloop.datasets.io.paths import list_files
from visionloop.datasets.io.text import NotText, read_text

# parsed YAML: keys and values are checked where they are used
YamlObject: TypeAlias = dict[Any, Any]  # type: ignore[explicit-any]


@dataclass(frozen=True)
class YoloDescription:
    """Content of a `data.yaml`.

    Attributes:
        source: the file.
        root: folder that its paths are relative to.
        classes: names in order of id.
        splits: {"train" | "val" | "test": folders of images or text files that list images, as
            written}, without the splits it does not name.
        keypoints: (number of keypoints, numbers of each) behind every box, None without the key.
    """

    source: str
    root: str
    classes: tuple[str, ...]
    splits: dict[str, tuple[str, ...]]
    keypoints: KeypointShape | None = None

    def resolve(self, entry: str) -> str:
        """Return the path of an entry, whether or not it exists.

        It is relative to the root; Roboflow writes `../train/images` and means `train/images`.

        Raises:
            DataLayoutError: for a path outside the dataset.
        """
        entry = with_slashes(entry)
        return self.locate(entry, (FileFinder(self.root),), self.source)

    def locate(
        self,
        written: str,
        finders: Sequence[FileFinder],
        place: str,
        *,
        may_have_moved: bool = False,
    ) -> str:
        """Return a path that is written in a file.

        Where nothing is there, the path of another machine, absolute or with `../`, is that of its
        last folders that are there.

        Args:
            written: the path.
            finders: of the folders that it may be relative to.
            place: the file, for the message.
            may_have_moved: take the last folders of any relative path too.

        Raises:
            DataLayoutError: for a path outside the dataset.
        """
        path = with_slashes(written)
        for finder in finders:
            if (found := _find(finder, path)) and self.contains(found):
                return found
        is_elsewhere = os.path.isabs(path) or bool(ntpath.splitdrive(path)[0])
        if is_elsewhere:
            may_have_moved = not os.path.exists(path)
        if may_have_moved or path.startswith("../"):
            parts = [part for part in path.split("/") if part not in ("", ".", "..")]
            for finder in finders:
                ends = (_find(finder, "/".join(parts[i:])) for i in range(len(parts)))
                if existing := [end for end in ends if end and self.contains(end)]:
                    return existing[0]
        joined = [os.path.normpath(os.path.join(finder.folder, path)) for finder in finders]
        inside = [path for path in joined if self.contains(path)]
        if not inside:
            raise DataLayoutError(
                place, f"{written} leads out of {self.root}; say with path: where the data is"
            )
        return inside[-1]

    def contains(self, path: str) -> bool:
        """Return whether an absolute path is below the root or the folder of the description.

        Only its name is compared: where links lead is the owner's decision.
        """
        here = os.path.dirname(os.path.abspath(self.source))
        return any(os.path.commonpath([folder, path]) == folder for folder in (self.root, here))


def read_description(yaml_file: str | os.PathLike[str]) -> YoloDescription:
    """Read a `data.yaml`. Raises DataLayoutError."""
    source = os.fspath(yaml_file)
    try:
        data = yaml.safe_load(read_text(source))
    except OSError as error:
        raise DataLayoutError(source, error.strerror or str(error)) from None
    except (yaml.YAMLError, ValueError) as error:
        raise DataLayoutError(source, f"not yaml: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise DataLayoutError(source, f"holds {show(data)}, expected names, train and val")
    return YoloDescription(
        source,
        _root(source, data),
        _class_names(source, data),
        _splits(source, data),
        _keypoints(source, data),
    )


def list_images(description: YoloDescription, split: str) -> tuple[str, list[str], Counter[str]]:
    """Return the images of a split.

    Returns:
        (folder, names relative to it, sorted by path; other files by suffix, see `count_suffixes`).

    Raises:
        DataLayoutError: without images.
    """
    if split not in description.splits:
        raise DataLayoutError(description.source, f"names no folder for {split}")
    paths: set[str] = set()
    others = Counter[str]()
    places = [description.resolve(entry) for entry in description.splits[split]]
    for entry, place in zip(description.splits[split], places, strict=True):
        if os.path.isdir(place):
            names, more = list_files(place, IMAGE_SUFFIXES)
            paths.update(os.path.join(place, name) for name in names)
            others += more
        elif os.path.isfile(place):
            paths.update(_listed_images(place, description))
        else:
            raise DataLayoutError(
                description.source, f"{split}: {entry} leads to {place}, and nothing is there"
            )
    if not paths:
        why = no_images(others, places[0], IMAGE_SUFFIXES, where=shorten(places))
        raise DataLayoutError(description.source, f"{split}: {why}")
    folder = os.path.commonpath([os.path.dirname(path) for path in paths])
    return folder, [os.path.relpath(path, folder) for path in sorted(paths)], others


def _find(finder: FileFinder, path: str) -> str | None:
    """Return the absolute path of a file as it is on disk, None without it."""
    joined = os.path.normpath(os.path.join(finder.folder, path))
    found = finder.find(os.path.relpath(joined, finder.folder))
    return None if found is None else os.path.normpath(os.path.join(finder.folder, found))


def _root(source: str, data: YamlObject) -> str:
    """Return the folder of `path`, or that of the file.

    `path` is often where the data was on another machine.
    """
    here = os.path.dirname(os.path.abspath(source))
    path = data.get("path")
    if path is not None and not isinstance(path, str):
        raise DataLayoutError(source, f"path is {show(path)}, expected a folder")
    root = os.path.normpath(os.path.join(here, path or ""))
    return root if os.path.isdir(root) else here


def _class_names(source: str, data: YamlObject) -> tuple[str, ...]:
    names = data.get("names")
    if isinstance(names, dict):
        names = {_class_id(key): name for key, name in names.items()}
        if set(names) != set(range(len(names))):
            raise DataLayoutError(
                source,
                f"names have the ids {shorten([show(key) for key in names])}, "
                f"expected 0 to {len(names) - 1}",
            )
        names = [names[label] for label in range(len(names))]
    if not isinstance(names, list) or not names:
        raise DataLayoutError(source, f"names is {show(names)}, expected a list of the classes")
    names = [str(name) if type(name) is int else name for name in names]
    for label, name in enumerate(names):
        if not is_text(name):  # in yaml a bare `yes` is a boolean and 1.0 a number
            raise DataLayoutError(
                source,
                f"the name of class {label} is {show(name)}, expected text; put it in quotes",
            )
    names = [class_name(name) for name in names]
    for label in repeated(names):
        raise DataLayoutError(source, f"two classes have the name {names[label]!r}")
    count = _class_id(data.get("nc", len(names)))
    if count != len(names):
        raise DataLayoutError(source, f"nc is {show(count)}, but there are {len(names)} names")
    return tuple(names)


def _class_id(key: object) -> object:
    """Return the id of a class, also where it is in quotes."""
    return int(key) if isinstance(key, str) and key.isdecimal() else key


def _keypoints(source: str, data: YamlObject) -> KeypointShape | None:
    """Return "kpt_shape", None without it."""
    shape = data.get("kpt_shape")
    if shape is None:
        return None
    is_pair = isinstance(shape, list) and len(shape) == 2
    if not is_pair or any(type(number) is not int for number in shape):
        raise DataLayoutError(source, f"kpt_shape is {show(shape)}, expected [keypoints, 2 or 3]")
    count, numbers = shape
    if count < 0 or numbers not in (2, 3):
        raise DataLayoutError(source, f"kpt_shape is {show(shape)}, expected [keypoints, 2 or 3]")
    return count, numbers


def _splits(source: str, data: YamlObject) -> dict[str, tuple[str, ...]]:
    splits = {}
    for split, words in SPLIT_FOLDERS.items():
        keys = [word for word in words if data.get(word)]
        if len(keys) > 1:
            raise DataLayoutError(
                source, f"holds both {keys[0]} and {keys[1]}, which mean the same; keep one"
            )
        if not keys:
            continue
        value = data[keys[0]]
        entries = value if isinstance(value, list) else [value]
        if not all(is_text(entry) for entry in entries):
            raise DataLayoutError(
                source, f"{keys[0]} is {show(value)}, expected a folder or a list of folders"
            )
        for entry in entries:
            if not entry.isprintable():  # "images\train"
                why = f"{keys[0]} is {show(entry)}: in double quotes a backslash is no separator"
                raise DataLayoutError(source, f"{why}; write / for it")
        splits[split] = tuple(entries)
    return splits


def _listed_images(text_file: str, description: YoloDescription) -> list[str]:
    """Return paths from a text file, one a line, relative to the file or the root, as on disk.

    Raises:
        DataLayoutError: for a path outside the dataset.
    """
    here = os.path.dirname(text_file)
    try:
        text = read_text(text_file, errors="surrogateescape")
    except NotText as error:
        raise DataLayoutError(text_file, str(error)) from None
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    finders = [FileFinder(folder) for folder in (here, description.root)]
    return [description.locate(line, finders, text_file, may_have_moved=True) for line in lines]
