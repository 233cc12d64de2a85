"""Reader of segmentation annotations of any kind; detects the kind of a folder."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from visionloop.bin.converters.coco_masks import read_coco_masks
from visionloop.bin.converters.coco_outlines import require_json_files
from visionloop.bin.converters.conversion import ConversionReport
from visionloop.bin.converters.entries import split_off_val
from visionloop.bin.converters.labelme import read_labelme
from visionloop.bin.converters.masks import MaskSplit
from visionloop.bin.converters.voc_masks import MASKS, read_voc_masks
from visionloop.datasets.detection.annotation_files import is_coco
from visionloop.datasets.io.folders import walk_folder
from visionloop.datasets.io.layout import DataLayoutError, is_hidden, shorten
from visionloop.datasets.io.text import read_ends
from visionloop.engine.errors import UserError

MAX_PROBED_FILES = 50  # of each folder
LABELME_KEYS = re.compile(rb'"(?:shapes"\s*:\s*\[|imagePath"\s*:)')


def read_masks(
    source: str,
    report: ConversionReport,
    *,
    kind: str | None,
    background: str,
    val_split: float,
    classes_file: str | None,
) -> dict[str, MaskSplit]:
    """Read the annotations of a folder.

    Args:
        source: folder, or a COCO json.
        report: receives what cannot be used.
        kind: "coco", "voc" or "labelme"; None: detect it.
        background, classes_file: see read_voc_masks.
        val_split: fraction of train that becomes val, in 0..1; only without a val split.

    Returns:
        {split: MaskSplit}.

    Raises:
        DataLayoutError: for a folder that is laid out otherwise.
        UserError: for options that contradict the source.
    """
    if not background.strip():
        why = "--background: is empty, expected the name of a class or ignore"
        raise UserError(why, field="background")
    kind = kind or detect_kind(source)
    if classes_file and kind != "voc":
        why = f"--classes: {source} is {kind}, which has class names of its own"
        raise UserError(why, field="classes", file=source)
    if kind == "voc":
        splits = read_voc_masks(source, report, background=background, classes_file=classes_file)
    else:
        read = {"coco": read_coco_masks, "labelme": read_labelme}[kind]
        splits = read(source, report, background=background)
    return split_off_val(splits, source, val_split)


def detect_kind(source: str) -> str:
    """Return "coco", "voc" or "labelme". Raises DataLayoutError for any other folder."""
    top = Path(source)
    if not top.is_dir():
        if top.is_file() and detect_json_kind(top) == "coco":
            return "coco"
        why = "not a folder, and no COCO json" if top.exists() else "no such file or folder"
        raise DataLayoutError(top, why)
    below = (*top.glob("*"), *top.glob("VOCdevkit/*"))
    folders = (top, *(folder for folder in below if not is_hidden(folder.name)))
    if any((folder / MASKS).is_dir() for folder in folders):
        return "voc"
    kinds = {kind for path in probed_jsons(top) if (kind := detect_json_kind(path))}
    if len(kinds) == 1:
        return kinds.pop()
    if kinds:
        why = "holds json files of both COCO and labelme; choose one with --from"
        raise DataLayoutError(top, why)
    require_json_files(top)
    content = shorten(sorted(name for name in os.listdir(top) if not is_hidden(name)))
    expected = f"expected COCO json, {MASKS}/*.png of VOC or json files of labelme"
    raise DataLayoutError(top, f"{expected}; found {content or 'nothing'}")


def probed_jsons(top: Path) -> Iterator[str]:
    """Yield the first json files of each folder."""
    for level, files in walk_folder(top):
        names = [name for name in files if name.lower().endswith(".json")]
        yield from (os.path.join(level, name) for name in names[:MAX_PROBED_FILES])


def detect_json_kind(path: str | os.PathLike[str]) -> str | None:
    """Return "coco" or "labelme" by the keys near the start and the end of a json, or None."""
    text = read_ends(path)
    if LABELME_KEYS.search(text):
        return "labelme"
    return "coco" if is_coco(path) else None
