"""Reader of objects and stuff in annotations of any kind; detects the kind of a folder."""

import os
from collections.abc import Sequence
from pathlib import Path

from visionloop.bin.converters.coco_outlines import require_json_files
from visionloop.bin.converters.conversion import ConversionReport
from visionloop.bin.converters.entries import split_off_val
from visionloop.bin.converters.mask_sources import detect_json_kind, probed_jsons
from visionloop.bin.converters.segments.cityscapes import find_top, read_cityscapes
from visionloop.bin.converters.segments.class_masks import holds_class_masks, read_class_masks
from visionloop.bin.converters.segments.coco_instances import read_coco_instances
from visionloop.bin.converters.segments.coco_panoptic import PREFIX, read_coco_panoptic
from visionloop.bin.converters.segments.labelme_objects import read_labelme_objects
from visionloop.bin.converters.segments.split import SegmentSplit
from visionloop.bin.converters.segments.voc_objects import OBJECTS, read_voc_objects
from visionloop.bin.converters.segments.yolo_outlines import read_yolo_outlines
from visionloop.bin.converters.voc_layout import find_annotations
from visionloop.datasets.detection.annotation_files import YAML_SUFFIXES, YOLO_KEY
from visionloop.datasets.io.layout import DataLayoutError, is_hidden, shorten
from visionloop.datasets.io.text import read_ends
from visionloop.engine.errors import UserError

READERS = {
    "coco": read_coco_instances,
    "coco-panoptic": read_coco_panoptic,
    "labelme": read_labelme_objects,
    "yolo": read_yolo_outlines,
    "cityscapes": read_cityscapes,
    "masks": read_class_masks,
}
EXPECTED = (
    f"COCO json, data.yaml of YOLO, json files of labelme, gtFine/ of Cityscapes, {OBJECTS}/ of "
    "VOC, or images/, masks/, instances/ and classes.json"
)


def read_segments(
    source: str,
    report: ConversionReport,
    *,
    kind: str | None,
    things: str | None,
    val_split: float,
    classes_file: str | None,
) -> dict[str, SegmentSplit]:
    """Read the annotations of a folder.

    Args:
        source: folder, or a COCO json.
        report: receives what cannot be used.
        kind: one of READERS, or "voc"; None: detect it.
        things: names of the classes that are things, with commas; None: as the source says.
        val_split: fraction of train that becomes val, in 0..1; only without a val split.
        classes_file: see read_voc_masks.

    Returns:
        {split: SegmentSplit}.

    Raises:
        DataLayoutError: for a folder that is laid out otherwise.
        UserError: for options that contradict the source.
    """
    kind = kind or detect_kind(source)
    names = None if things is None else _split_names(things)
    if classes_file and kind != "voc":
        why = f"--classes: {source} is {kind}, which has class names of its own"
        raise UserError(why, field="classes", file=source)
    if kind == "voc":
        splits = read_voc_objects(source, report, things=names, classes_file=classes_file)
    else:
        splits = READERS[kind](source, report, things=names)
    return split_off_val(splits, source, val_split)


def _split_names(text: str) -> Sequence[str]:
    """Return the names in "a,b". Raises UserError for an empty one."""
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        why = f"--things: {text!r} holds an empty name, expected names with commas between them"
        raise UserError(why, field="things")
    return names


def detect_kind(source: str) -> str:
    """Return the kind of a folder or json. Raises DataLayoutError for any other."""
    top = Path(source)
    if not top.is_dir():
        if top.is_file() and (kind := _json_kind(top)) in ("coco", "coco-panoptic"):
            return str(kind)
        why = "not a folder, and no COCO json" if top.exists() else "no such file or folder"
        raise DataLayoutError(top, why)
    if find_top(top):
        return "cityscapes"
    if holds_class_masks(top):
        return "masks"
    if find_annotations(top, OBJECTS):
        return "voc"
    kinds = {kind for path in probed_jsons(top) if (kind := _json_kind(path))}
    if any(map(_is_description, top.iterdir())):
        kinds.add("yolo")
    if len(kinds) == 1:
        return kinds.pop()
    if kinds:
        why = f"holds annotations of {' and '.join(sorted(kinds))}; choose one with --from"
        raise DataLayoutError(top, why)
    require_json_files(top)
    content = shorten(sorted(name for name in os.listdir(top) if not is_hidden(name)))
    raise DataLayoutError(top, f"expected {EXPECTED}; found {content or 'nothing'}")


def _json_kind(path: str | os.PathLike[str]) -> str | None:
    """Return the kind of a json, or None. Panoptic files are known by their name or their keys."""
    kind = detect_json_kind(path)
    if kind != "coco":
        return kind
    name = os.path.basename(path).lower()
    is_panoptic = name.startswith(PREFIX) or b'"segments_info"' in read_ends(path)
    return "coco-panoptic" if is_panoptic else "coco"


def _is_description(path: Path) -> bool:
    """Return whether a file is a YAML with names, as YOLO has it."""
    is_yaml = path.suffix.lower() in YAML_SUFFIXES and not is_hidden(path.name)
    return is_yaml and path.is_file() and bool(YOLO_KEY.search(read_ends(path)))
