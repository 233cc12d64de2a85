"""Places of the annotations and images of a detection split, in the layouts that tools write.

- `train.json` with the images in `train/` (or `images/train/`, `images/`, or with names relative
  to the data folder);
- one json in the split's folder, next to the images, as Roboflow writes it:
  `train/_annotations.coco.json`;
- COCO's own: `annotations/instances_train2017.json` with the images in `train2017/` or
  `images/train2017/`;
- YOLO's: `data.yaml`;
- a single json of any name, which is the training split: `annotations/instances_default.json` of
  CVAT, `result.json` of Label Studio, `labels.json` of FiftyOne.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from visionloop.datasets.detection.index import DetectionIndex, inspect_coco, require_index
from visionloop.datasets.detection.problems import Problem
from visionloop.datasets.detection.yolo import inspect_yolo
from visionloop.datasets.detection.yolo_description import read_description
from visionloop.datasets.io.layout import (
    SPLIT_FOLDERS,
    DataLayoutError,
    is_hidden,
    require_folder,
    shorten,
    suggest_folder,
)
from visionloop.datasets.io.names import FileFinder
from visionloop.datasets.io.text import PROBED_BYTES, read_ends

COCO_KEYS = re.compile(rb'"(images|annotations|categories)"\s*:\s*\[')
MAX_FOLDERS = 200  # that are searched for images
DESCRIPTIONS = ("data.yaml", "data.yml")  # go before others
YAML_SUFFIXES = (".yaml", ".yml")
YOLO_KEY = re.compile(rb"^names\s*:", re.MULTILINE)
# class names that labelImg, Label Studio and Darknet write without a description
NAME_FILES = ("classes.txt", "obj.names", "labels/classes.txt")
CVAT_HINT = "CVAT's own xml is not read: export the task as COCO"
ROBOFLOW = "_annotations.coco.json"
EXPECTED = (
    "{0}.json with images in {0}/, {0}/"
    + ROBOFLOW
    + ", annotations/instances_{0}*.json, a YOLO data.yaml with {0}, or a single COCO json"
)


def find_detection_split(
    data: str | os.PathLike[str],
    split: str,
    classes: Sequence[str] | None = None,
    *,
    need_images: bool = True,
) -> DetectionIndex | None:
    """Read the DetectionIndex of a split, or return None without the split.

    Args:
        data: the data folder.
        split: "train", "val" or "test".
        classes: names of the training split, which then give the labels.
        need_images: False for annotations alone (COCO only).

    Raises:
        DataLayoutError: one line with the first error.
    """
    inspected = inspect_detection_split(data, split, classes, need_images=need_images)
    return require_index(*inspected) if inspected else None


def require_detection_split(
    data: str | os.PathLike[str],
    split: str,
    classes: Sequence[str] | None = None,
    *,
    need_images: bool = True,
) -> DetectionIndex:
    """Read the DetectionIndex of a split; arguments as for find_detection_split.

    Raises:
        DataLayoutError: also without the split, with what is there instead.
    """
    index = find_detection_split(data, split, classes, need_images=need_images)
    if index is None:
        present = sorted(entry.name for entry in os.scandir(data) if not is_hidden(entry.name))
        name = SPLIT_FOLDERS[split][0]
        hint = suggest_folder(data, lambda folder: find_annotations(folder, split))
        finder = FileFinder(data)
        if lists := [file for file in NAME_FILES if finder.find(file)]:
            hint = f"; for YOLO labels put the names of {lists[0]} into a data.yaml: names, train"
        levels = ("", "annotations", *SPLIT_FOLDERS["train"])
        files = (os.path.join(level, file) for level in levels for file in finder.names(level))
        if xml := next((file for file in files if file.endswith(".xml")), None):
            is_cvat = b"<annotations" in read_ends(os.path.join(data, xml))
            hint = f"; {CVAT_HINT}" if is_cvat else "; for Pascal VOC run bin/convert.py voc first"
        raise DataLayoutError(
            data, f"expected {EXPECTED.format(name)}; found {shorten(present) or 'nothing'}{hint}"
        )
    return index


def inspect_detection_split(
    data: str | os.PathLike[str],
    split: str,
    classes: Sequence[str] | None = None,
    *,
    need_images: bool = True,
) -> tuple[DetectionIndex | None, list[Problem]] | None:
    """Return (DetectionIndex or None, all problems) of a split, or None without the split.

    Arguments as for find_detection_split.

    Raises:
        DataLayoutError: where it is not clear what the split is.
    """
    source = find_annotations(data, split)
    if source is None:
        return None
    if source.suffix.lower() in YAML_SUFFIXES:
        return inspect_yolo(source, split, classes)
    folders = image_folders(Path(data), source, split)
    return inspect_coco(source, folders, classes, need_images=need_images)


def find_annotations(data: str | os.PathLike[str], split: str) -> Path | None:
    """Return the json or yaml file that describes a split, or None.

    Raises:
        DataLayoutError: when there is more than one.
    """
    data = Path(data)
    require_folder(data)
    files = _files_of_split(data, split)
    if not files and split == "train" and not _files_of_split(data, "val", "test"):
        files = _single_json(data)
    if len(files) > 1:
        names = [str(path.relative_to(data)) for path in files]
        more = f" and {len(names) - 2} more" if len(names) > 2 else ""
        raise DataLayoutError(
            data, f"holds both {names[0]} and {names[1]}{more} for the split {split!r}; keep one"
        )
    return files[0] if files else None


def _files_of_split(data: Path, *splits: str) -> list[Path]:
    """Return the annotation files that are named after splits, in any case."""
    finder = FileFinder(data)
    annotations = finder.find("annotations") or "annotations"
    candidates: list[str | None] = []
    for name in (name for split in splits for name in SPLIT_FOLDERS[split]):
        candidates += [finder.find(f"{name}.json"), finder.find(f"{annotations}/{name}.json")]
        candidates += [
            f"{annotations}/{file}"
            for file in sorted(finder.names(annotations))
            if file.lower().startswith(f"instances_{name}") and file.lower().endswith(".json")
        ]
        folder = finder.find(name)
        if folder and ROBOFLOW in finder.names(folder):
            candidates.append(f"{folder}/{ROBOFLOW}")
        elif folder:
            candidates += [
                f"{folder}/{file}" for file in sorted(finder.names(folder)) if is_json(file)
            ]
    candidates += [
        name
        for name in _descriptions(finder)
        if any(_names_split(data / name, split) for split in splits)
    ]
    # instances_val* matches instances_validation.json too
    paths = [data / name for name in dict.fromkeys(candidates) if name]
    return [path for path in paths if path.is_file() and not is_hidden(path.name)]


def _descriptions(finder: FileFinder) -> list[str]:
    """Return the names of the YOLO descriptions in a folder: data.yaml, or any with class names."""
    names = sorted(finder.names(""))
    usual = [name for name in names if name in DESCRIPTIONS]
    return usual or [
        name
        for name in names
        if name.lower().endswith(YAML_SUFFIXES)
        and not is_hidden(name)
        and YOLO_KEY.search(read_ends(os.path.join(finder.folder, name)))
    ]


def _single_json(data: Path) -> list[Path]:
    """Return the COCO json in a folder that names no split, at most one.

    Raises:
        DataLayoutError: for several.
    """
    finder = FileFinder(data)
    files = [
        data / level / name
        for level in ("", "annotations", "images")
        for name in sorted(finder.names(level))
        if is_json(name)
    ]
    jsons = [path for path in files if is_coco(path)]
    if len(jsons) > 1:
        names = shorten([str(path.relative_to(data)) for path in jsons])
        raise DataLayoutError(
            data, f"holds several COCO jsons ({names}); call them train.json and val.json"
        )
    return jsons


def is_coco(path: str | os.PathLike[str]) -> bool:
    """Return whether a json has the keys of COCO, near its start or its end.

    A small one with categories alone is none: Label Studio writes a notes.json beside YOLO labels.
    """
    content = read_ends(path)
    keys = set(COCO_KEYS.findall(content))
    return bool(keys - {b"categories"}) or (bool(keys) and len(content) >= 2 * PROBED_BYTES)


def is_json(name: str) -> bool:
    """Return whether a file is called a json and is not hidden."""
    return name.lower().endswith(".json") and not is_hidden(name)


def _names_split(yaml_file: Path, split: str) -> bool:
    """Return whether a YOLO description has images for the split.

    A test folder that is missing does not count: exports name it anyway.
    """
    if not yaml_file.is_file():
        return False
    description = read_description(yaml_file)
    entries = description.splits.get(split, ())
    return bool(entries) and (
        split != "test" or any(os.path.exists(description.resolve(entry)) for entry in entries)
    )


def image_folders(data: Path, json_file: Path, split: str) -> list[Path]:
    """Return folders that the file names of a json may be relative to, the likeliest first."""
    if json_file.parent != data and json_file.parent.name.lower() != "annotations":
        return [json_file.parent, json_file.parent / "images", data]
    # train2017, train
    names = dict.fromkeys([json_file.stem.removeprefix("instances_"), *SPLIT_FOLDERS[split]])
    folders = [
        *(data / name for name in names),
        *(data / "images" / name for name in names),
        data / "images",
        data,
    ]
    is_of_split = any(word in json_file.stem.lower() for word in SPLIT_FOLDERS[split])
    return folders if is_of_split else [*folders, *_folders_below(data)]


def _folders_below(data: Path) -> list[Path]:
    """Return the folders of the first two levels, sorted."""
    below = sorted(path for path in [*data.glob("*/"), *data.glob("*/*/")] if path.is_dir())
    return [path for path in below if not is_hidden(path.name)][:MAX_FOLDERS]
