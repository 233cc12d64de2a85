"""Where the annotations and images of a detection split lie, in the layouts that tools write.

- `train.json` with the images in `train/` (or `images/train/`, `images/`, or named relative to
the data folder);
- one json in the split's folder, beside the images, as Roboflow writes it:
`train/_annotations.coco.json`;
- COCO's own: `annotations/instances_train2017.json` with the images in `train2017/` or
`images/train2017/`;
- YOLO's: `data.yaml`.
"""

import os
from pathlib import Path

from visionloop.datasets.detection.index import inspect_coco, raise_first_error
from visionloop.datasets.detection.yolo import inspect_yolo
from visionloop.datasets.detection.yolo_description import read_description
from visionloop.datasets.io.layout import SPLIT_FOLDERS, DataLayoutError, is_hidden, nearby, shorten

DESCRIPTIONS = ("data.yaml", "data.yml")
ROBOFLOW = "_annotations.coco.json"
EXPECTED = (
    "{0}.json with images in {0}/, {0}/"
    + ROBOFLOW
    + ", annotations/instances_{0}*.json, or a YOLO data.yaml with {0}"
)


def find_detection_split(data, split, classes=None, *, need_images=True):
    """The DetectionIndex of a split ("train", "val" or "test"), or None where there is none. Raises DataLayoutError.

    classes: names of the training split, the labels are then theirs; need_images: False for
    annotations alone (COCO only).
    """
    found = inspect_detection_split(data, split, classes, need_images=need_images)
    if found is None:
        return None
    index, problems = found
    raise_first_error(problems)
    return index


def require_detection_split(data, split, classes=None, *, need_images=True):
    """Like find_detection_split, but a missing split is an error that says what was expected and what is there instead."""
    index = find_detection_split(data, split, classes, need_images=need_images)
    if index is None:
        there = sorted(entry.name for entry in os.scandir(data) if not is_hidden(entry.name))
        name = SPLIT_FOLDERS[split][0]
        hint = nearby(data, lambda folder: find_annotations(folder, split))
        raise DataLayoutError(
            data, f"expected {EXPECTED.format(name)}; found {shorten(there) or 'nothing'}{hint}"
        )
    return index


def inspect_detection_split(data, split, classes=None, *, need_images=True):
    """(DetectionIndex or None, [("error" | "warning", path, why)]) with everything that is wrong with a split; None without the split.

    Raises DataLayoutError where it is not clear what the split is.
    """
    source = find_annotations(data, split)
    if source is None:
        return None
    if source.name in DESCRIPTIONS:
        return inspect_yolo(source, split, classes)
    return inspect_coco(
        source, _image_folders(Path(data), source, split), classes, need_images=need_images
    )


def find_annotations(data, split):
    """The json or yaml file that describes a split, or None. Raises DataLayoutError when there is more than one."""
    data = Path(data)
    if not data.is_dir():
        raise DataLayoutError(data, "not a folder" if data.exists() else "no such folder")
    candidates = []
    for name in SPLIT_FOLDERS[split]:
        candidates += [data / f"{name}.json", data / "annotations" / f"{name}.json"]
        candidates += sorted((data / "annotations").glob(f"instances_{name}*.json"))
        beside = data / name / ROBOFLOW
        candidates += [beside] if beside.is_file() else sorted((data / name).glob("*.json"))
    candidates += [data / name for name in DESCRIPTIONS if _names_split(data / name, split)]
    # instances_val* finds instances_validation.json too
    found = [
        path for path in dict.fromkeys(candidates) if path.is_file() and not is_hidden(path.name)
    ]
    if len(found) > 1:
        names = [str(path.relative_to(data)) for path in found]
        more = f" and {len(names) - 2} more" if len(names) > 2 else ""
        raise DataLayoutError(
            data, f"holds both {names[0]} and {names[1]}{more} for the split {split!r}; keep one"
        )
    return found[0] if found else None


def _names_split(yaml_file, split):
    """Whether a YOLO description has images for the split; a test folder that is missing does not count: exports name it anyway."""
    if not yaml_file.is_file():
        return False
    description = read_description(yaml_file)
    entries = description.splits.get(split, ())
    return bool(entries) and (
        split != "test" or any(os.path.exists(description.place(entry)) for entry in entries)
    )


def _image_folders(data, json_file, split):
    """Folders that the file names of a json may be relative to, the likeliest first."""
    if json_file.parent not in (data, data / "annotations"):
        return [json_file.parent, json_file.parent / "images", data]
    names = dict.fromkeys(
        [json_file.stem.removeprefix("instances_"), *SPLIT_FOLDERS[split]]
    )  # train2017, train
    return [
        *(data / name for name in names),
        *(data / "images" / name for name in names),
        data / "images",
        data,
    ]
