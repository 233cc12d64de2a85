"""Files that describe a detection split, in the layouts that tools write. Imports no torch.

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
from collections.abc import Iterable
from pathlib import Path

from visionloop.datasets.detection.yolo_description import read_description
from visionloop.datasets.io.layout import (
    SPLIT_FOLDERS,
    DataLayoutError,
    is_hidden,
    require_folder,
    shorten,
)
from visionloop.datasets.io.names import FileFinder
from visionloop.datasets.io.text import PROBED_BYTES, read_ends

COCO_KEYS = re.compile(rb'"(images|annotations|categories)"\s*:\s*\[')
DESCRIPTIONS = ("data.yaml", "data.yml")  # go before others
YAML_SUFFIXES = (".yaml", ".yml")
YOLO_KEY = re.compile(rb"^names\s*:", re.MULTILINE)
ROBOFLOW = "_annotations.coco.json"


def find_annotations(data: str | os.PathLike[str], split: str) -> Path | None:
    """Return the json or yaml file that describes a split, or None.

    Raises:
        DataLayoutError: when there is more than one.
    """
    data = Path(data)
    require_folder(data)
    files = files_of_split(data, split)
    if not files and split == "train" and not files_of_split(data, "val", "test"):
        files = single_json(data)
    if len(files) > 1:
        names = [str(path.relative_to(data)) for path in files]
        more = f" and {len(names) - 2} more" if len(names) > 2 else ""
        raise DataLayoutError(
            data, f"holds both {names[0]} and {names[1]}{more} for the split {split!r}; keep one"
        )
    return files[0] if files else None


def files_of_split(data: Path, *splits: str) -> list[Path]:
    """Return the annotation files that are named after splits, in any case.

    Raises:
        DataLayoutError: see `require_files`.
    """
    finder = FileFinder(data)
    annotations = finder.find("annotations") or "annotations"
    candidates: list[str | None] = []
    for name in (name for split in splits for name in SPLIT_FOLDERS[split]):
        named = [finder.find(f"{name}.json"), finder.find(f"{annotations}/{name}.json")]
        named += [
            f"{annotations}/{file}"
            for file in sorted(finder.names(annotations))
            if file.lower().startswith(f"instances_{name}") and file.lower().endswith(".json")
        ]
        require_files(data / name for name in named if name)
        candidates += named
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


def require_files(paths: Iterable[Path]) -> None:
    """Raise DataLayoutError for annotations of a split that are no file, or a link to none.

    Left out in silence, another split would be all of the data.
    """
    for path in paths:
        if path.is_dir():
            raise DataLayoutError(path, "is a folder, expected a json file of this name")
        if not path.exists():
            target = os.readlink(path) if path.is_symlink() else "nothing"
            raise DataLayoutError(path, f"is a link to {target}, which does not exist")


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


def single_json(data: Path) -> list[Path]:
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
