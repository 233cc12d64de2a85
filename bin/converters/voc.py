"""A folder in the form of Pascal VOC: `JPEGImages/`, `Annotations/*.xml`, `ImageSets/Main/*.txt`."""

import os
from pathlib import Path

from tqdm import tqdm

from visionloop.bin.converters.columns import GrowingIndex
from visionloop.bin.converters.voc_xml import BrokenAnnotation, read_voc_xml
from visionloop.datasets.io.images import IMAGE_SUFFIXES, UnreadableImage, read_size
from visionloop.datasets.io.layout import DataLayoutError, is_hidden, shorten
from visionloop.engine.data.subsets import hash_split
from visionloop.engine.errors import UserError

SPLITS = ("train", "val", "test")
XML, IMAGES, LISTS = "Annotations", "JPEGImages", "ImageSets/Main"


def read_voc(source, findings, *, difficult, val_split):
    """{split: DetectionIndex} of a VOC folder, or of the one VOC folder below `source`.

    difficult: "keep" objects marked so as they are, mark them as "crowd", or "drop" them;
    val_split: share of train that becomes val where there is no list of val; findings: takes what
    is broken and what was left out. Raises DataLayoutError and UserError.
    """
    root = find_voc_root(source)
    stems = list_splits(root)
    if val_split and "val" in stems:
        raise UserError(
            f"--val-split: {root} has a val list already", field="val_split", file=str(root)
        )
    if val_split and "train" in stems:
        train, val = hash_split(stems["train"], None, val_split)
        stems |= {
            "train": [stems["train"][i] for i in train],
            "val": [stems["train"][i] for i in val],
        }
    reader = _Reader(root, findings, difficult)
    with tqdm(
        total=sum(map(len, stems.values())),
        desc="reading annotations",
        unit="xml",
        disable=None,
        leave=False,
    ) as bar:
        for split, names in stems.items():
            for stem in names:
                reader.add(split, stem)
                bar.update()
    return {split: rows.index() for split, rows in reader.splits.items()}


def find_voc_root(source, annotations=XML, suffix=".xml"):
    """The folder that holds Annotations/ (or other `annotations`) and JPEGImages/: `source`, or one below it, as VOCdevkit/VOC2007."""
    source = Path(source)
    if not source.is_dir():
        raise DataLayoutError(source, "not a folder" if source.exists() else "no such folder")
    candidates = (source, *sorted(source.glob("*")), *sorted(source.glob("VOCdevkit/*")))
    found = [folder for folder in candidates if (folder / annotations).is_dir()]
    if not found:
        there = sorted(name for name in os.listdir(source) if not is_hidden(name))
        raise DataLayoutError(
            source,
            f"expected {annotations}/*{suffix} and {IMAGES}/, found {shorten(there) or 'nothing'}",
        )
    if len(found) > 1:
        raise DataLayoutError(
            source,
            f"holds several datasets ({shorten([folder.name for folder in found])}); name one of them",
        )
    if not (found[0] / IMAGES).is_dir():
        raise DataLayoutError(found[0], f"{IMAGES}/ is missing")
    return found[0]


def list_splits(root, folder=LISTS, annotations=XML, suffix=".xml"):
    """{split: names without suffix}: from the lists in `folder`, or all annotations as "train" where there are no lists."""
    lists = {split: _read_list(root / folder / f"{split}.txt") for split in (*SPLITS, "trainval")}
    if lists["train"] is None and lists["trainval"] is not None:
        held_out = set(lists["val"] or [])
        lists["train"] = [stem for stem in lists["trainval"] if stem not in held_out]
    found = {split: lists[split] for split in SPLITS if lists[split] is not None}
    if found:
        return found
    names = [
        name
        for name in os.listdir(root / annotations)
        if name.lower().endswith(suffix) and not is_hidden(name)
    ]
    return {"train": sorted(name[: -len(suffix)] for name in names)}


def list_images(root):
    """{name without suffix: its files in JPEGImages/}."""
    files = {}
    for name in sorted(os.listdir(root / IMAGES)):
        if name.lower().endswith(IMAGE_SUFFIXES) and not is_hidden(name):
            files.setdefault(os.path.splitext(name)[0], []).append(name)
    return files


def wrong_files(files):
    """What is wrong with the files of one name, or None: there is to be one."""
    if len(files) == 1:
        return None
    there = f"several images of this name: {', '.join(files)}" if files else "no image of this name"
    return f"{there} in {IMAGES}/"


def _read_list(path):
    """The names in a list, each once, or None where there is no such file."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise DataLayoutError(path, f"not UTF-8 at byte {error.start}") from None
    return list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))


class _Reader:
    """Reads annotation after annotation into `splits`, {split: GrowingIndex}; what is broken goes to the findings instead."""

    def __init__(self, root, findings, difficult):
        self.root, self.findings, self.difficult = root, findings, difficult
        self.splits, self.numbers = {}, {}
        self.files = list_images(root)

    def add(self, split, stem):
        """One image with its boxes."""
        rows = self.splits.setdefault(
            split, GrowingIndex(self.root, self.root / IMAGES, self.numbers)
        )
        xml = self.root / XML / f"{stem}.xml"
        files = self.files.get(stem, [])
        try:
            annotation = read_voc_xml(xml)
            if wrong_files(files):
                raise BrokenAnnotation(wrong_files(files))
            size_hw = read_size(self.root / IMAGES / files[0])
            if annotation.size_hw not in (None, size_hw):
                said, real = ("{1} x {0}".format(*size) for size in (annotation.size_hw, size_hw))
                raise BrokenAnnotation(
                    f"<size> is {said}, but {IMAGES}/{files[0]} is {real} (width x height, upright)"
                )
        except UnreadableImage as error:
            self.findings.problem(error.path, error.why)
        except BrokenAnnotation as error:
            self.findings.problem(xml, str(error))
        except OSError as error:
            self.findings.problem(xml, f"{error.strerror} (listed for {split})")
        else:
            rows.add(files[0], size_hw, *self.objects(annotation, size_hw, xml))

    def objects(self, annotation, size_hw, xml):
        """(boxes, kinds, crowd) that are taken over."""
        boxes, inside = annotation.boxes_in(*size_hw)
        taken = []
        for i, (box, is_difficult) in enumerate(zip(boxes, annotation.difficult, strict=True)):
            place = f"{xml}: object {i + 1} ({annotation.kinds[i]})"
            if box[2:].min() <= 0:
                self.findings.note(place, "empty box, left out")
                continue
            if is_difficult and self.difficult == "drop":
                self.findings.note(place, "difficult, left out")
                continue
            if not inside[i]:
                self.findings.note(place, "box reaches beyond the image, clipped")
            taken.append(i)
        crowd = [annotation.difficult[i] and self.difficult == "crowd" for i in taken]
        return boxes[taken], [annotation.kinds[i] for i in taken], crowd
