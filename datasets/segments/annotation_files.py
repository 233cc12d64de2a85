"""Files that describe the segments of a split. Imports no torch.

layout.py lists the names.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from visionloop.datasets.detection.annotation_files import (
    YAML_SUFFIXES,
    files_of_split,
    is_coco,
    is_json,
    require_files,
    single_json,
)
from visionloop.datasets.io.layout import SPLIT_FOLDERS, DataLayoutError, require_folder
from visionloop.datasets.io.names import FileFinder

if TYPE_CHECKING:
    from visionloop.datasets.segments.index import Kind

OBJECTS = "instances"  # folder of the files of object numbers
ANNOTATIONS, INSTANCES, PANOPTIC = "annotations", "instances_", "panoptic_"


def find_source(data: Path, split: str, kind: Kind) -> Path | None:
    """Return the json of a split, or None: it has none, or class and object masks."""
    require_folder(data)
    if kind == "instance":
        files = instance_jsons(data, split) or panoptic_jsons(data, split)
    else:
        files = panoptic_jsons(data, split)
    if not files and kind == "instance" and split == "train" and not (data / OBJECTS).is_dir():
        others = ("val", "test")
        if not any(instance_jsons(data, word) + panoptic_jsons(data, word) for word in others):
            files = single_json(data)
    if len(files) > 1:
        names = [str(path.relative_to(data)) for path in files]
        more = f" and {len(names) - 2} more" if len(names) > 2 else ""
        raise DataLayoutError(
            data, f"holds both {names[0]} and {names[1]}{more} for the split {split!r}; keep one"
        )
    return files[0] if files else None


def instance_jsons(data: Path, split: str) -> list[Path]:
    """Return the COCO jsons of instances that are named after a split."""
    files = [*prefixed_jsons(data, split, INSTANCES), *files_of_split(data, split)]
    files = [
        path
        for path in dict.fromkeys(files)
        if path.suffix.lower() not in YAML_SUFFIXES and not path.name.lower().startswith(PANOPTIC)
    ]
    # LabelMe writes a json beside each image
    return [path for path in files if is_coco(path)] if len(files) > 1 else files


def panoptic_jsons(data: Path, split: str) -> list[Path]:
    """Return the COCO panoptic jsons of a split."""
    return prefixed_jsons(data, split, PANOPTIC)


def prefixed_jsons(data: Path, split: str, prefix: str) -> list[Path]:
    """Return the jsons, beside the images or below annotations/, whose name has a prefix.

    Raises:
        DataLayoutError: see `require_files`.
    """
    finder = FileFinder(data)
    files = [
        data / level / name
        for level in ("", finder.find(ANNOTATIONS) or ANNOTATIONS)
        for name in sorted(finder.names(level))
        if is_json(name)
        and name.lower().startswith(tuple(prefix + word for word in SPLIT_FOLDERS[split]))
    ]
    require_files(files)
    return files


def panoptic_folders(data: Path, source: Path) -> list[Path]:
    """Return the folders that may hold the PNGs of a COCO panoptic json."""
    return [source.parent / source.stem, data / source.stem, data / ANNOTATIONS / source.stem]
