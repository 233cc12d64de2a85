"""Which kind of outlines or masks a folder holds, and its images with masks to draw."""

import os
import re
from pathlib import Path

from visionloop.bin.converters.coco_masks import read_coco_masks
from visionloop.bin.converters.labelme import read_labelme
from visionloop.bin.converters.voc_masks import MASKS, read_voc_masks
from visionloop.datasets.io.layout import DataLayoutError, is_hidden, shorten
from visionloop.engine.data.subsets import hash_split
from visionloop.engine.errors import UserError

SNIFFED = 1 << 16  # bytes of a json that are looked at: one of COCO may have gigabytes
MOST_SNIFFED = 50  # files
COCO_KEYS = re.compile(rb'"(?:images|annotations|categories)"\s*:\s*\[')
LABELME_KEYS = re.compile(rb'"(?:shapes"\s*:\s*\[|imagePath"\s*:)')


def read_masks(source, findings, *, kind, background, val_split, classes_file):
    """{split: MaskSplit} of a folder of any kind: "coco", "voc" or "labelme"; None: whichever it looks like.

    findings: takes what is broken; background, classes_file: see read_voc_masks; val_split: share
    of train that becomes val where there is no val. Raises DataLayoutError and UserError.
    """
    if not background.strip():
        raise UserError(
            "--background: is empty, expected the name of a class or ignore", field="background"
        )
    kind = kind or recognise(source)
    if classes_file and kind != "voc":
        raise UserError(
            f"--classes: {source} is {kind}, which names its classes itself",
            field="classes",
            file=str(source),
        )
    if kind == "voc":
        splits = read_voc_masks(source, findings, background=background, classes_file=classes_file)
    else:
        splits = {"coco": read_coco_masks, "labelme": read_labelme}[kind](
            source, findings, background=background
        )
    if not val_split or "train" not in splits:
        return splits
    if "val" in splits:
        raise UserError(
            f"--val-split: {source} has a val split already", field="val_split", file=str(source)
        )
    whole = splits["train"]
    train, val = hash_split(whole.names, None, val_split)
    return splits | {"train": whole.subset(train), "val": whole.subset(val)}


def recognise(source):
    """Which of "coco", "voc" and "labelme" a folder is. Raises DataLayoutError where a folder looks like none of them."""
    source = Path(source)
    if not source.is_dir():
        if source.is_file() and sniff(source) == "coco":
            return "coco"
        raise DataLayoutError(
            source,
            "not a folder, and no COCO json" if source.exists() else "no such file or folder",
        )
    if any(
        (folder / MASKS).is_dir()
        for folder in (source, *source.glob("*"), *source.glob("VOCdevkit/*"))
    ):
        return "voc"
    found = {kind for path in _some_jsons(source) if (kind := sniff(path))}
    if len(found) == 1:
        return found.pop()
    if found:
        raise DataLayoutError(
            source, "holds json files of both COCO and labelme; say which with --from"
        )
    there = shorten(sorted(name for name in os.listdir(source) if not is_hidden(name)))
    raise DataLayoutError(
        source,
        f"expected COCO json, {MASKS}/*.png of VOC or json files of labelme; found {there or 'nothing'}",
    )


def _some_jsons(source):
    """The first json files of each folder."""
    for level, folders, files in os.walk(source):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        names = sorted(
            name for name in files if name.lower().endswith(".json") and not is_hidden(name)
        )
        yield from (os.path.join(level, name) for name in names[:MOST_SNIFFED])


def sniff(path):
    """What a json is, "coco", "labelme" or None, by words at its start and its end."""
    try:
        with open(path, "rb") as file:
            text = file.read(SNIFFED)
            file.seek(max(file.tell(), file.seek(0, os.SEEK_END) - SNIFFED))
            text += file.read(SNIFFED)
    except OSError:
        return None
    if LABELME_KEYS.search(text):
        return "labelme"
    return "coco" if COCO_KEYS.search(text) else None
