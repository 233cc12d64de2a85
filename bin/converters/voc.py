"""Reader of Pascal VOC: `JPEGImages/`, `Annotations/*.xml`, `ImageSets/Main/*.txt`."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from visionloop.bin.converters.columns import DetectionIndexBuilder
from visionloop.bin.converters.conversion import ConversionReport
from visionloop.bin.converters.voc_xml import InvalidAnnotation, VocAnnotation, read_voc_xml
from visionloop.datasets.detection.index import DetectionIndex
from visionloop.datasets.io.images import IMAGE_SUFFIXES, UnreadableImage, read_size
from visionloop.datasets.io.layout import DataLayoutError, is_hidden, shorten
from visionloop.datasets.io.text import NotText, read_text
from visionloop.engine.data.subsets import hash_split
from visionloop.engine.errors import UserError

SPLITS = ("train", "val", "test")
XML, IMAGES, LISTS = "Annotations", "JPEGImages", "ImageSets/Main"


def read_voc(
    source: str, report: ConversionReport, *, difficult: str, val_split: float
) -> dict[str, DetectionIndex]:
    """Read a VOC folder, or the only VOC folder below `source`.

    Args:
        source: folder.
        report: receives annotations that cannot be used, and those that were left out or clipped.
        difficult: "keep" objects marked difficult, mark them as "crowd", or "drop" them.
        val_split: fraction of train that becomes val, in 0..1; only without a list of val.

    Returns:
        {split: DetectionIndex}.

    Raises:
        DataLayoutError: for a folder that is laid out otherwise.
        UserError: for a val split that exists already.
    """
    root = find_voc_root(source)
    stems = list_splits(root)
    if val_split and "val" in stems:
        raise UserError(
            f"--val-split: {root} has a val list already", field="val_split", file=str(root)
        )
    if val_split and "train" in stems:
        whole = stems["train"]
        train, val = hash_split(whole, None, val_split)
        stems |= {"train": [whole[i] for i in train], "val": [whole[i] for i in val]}
    reader = _Reader(root, report, difficult)
    total = sum(map(len, stems.values()))
    with tqdm(
        total=total, desc="reading annotations", unit="xml", disable=None, leave=False
    ) as progress:
        for split, names in stems.items():
            for stem in names:
                reader.add(split, stem)
                progress.update()
    return {split: builder.build() for split, builder in reader.builders.items()}


def find_voc_root(source: str, annotations: str = XML, suffix: str = ".xml") -> Path:
    """Return the folder with `annotations`/ and JPEGImages/.

    It is `source`, or one below it such as VOCdevkit/VOC2007.

    Args:
        source: folder to search.
        annotations: name of the folder of annotations.
        suffix: of the files in it, for the message.

    Raises:
        DataLayoutError: without exactly one such folder.
    """
    top = Path(source)
    if not top.is_dir():
        raise DataLayoutError(top, "not a folder" if top.exists() else "no such folder")
    below = (*sorted(top.glob("*")), *sorted(top.glob("VOCdevkit/*")))
    candidates = (top, *(folder for folder in below if not is_hidden(folder.name)))
    roots = [folder for folder in candidates if (folder / annotations).is_dir()]
    if not roots:
        content = shorten(sorted(name for name in os.listdir(top) if not is_hidden(name)))
        expected = f"expected {annotations}/*{suffix} and {IMAGES}/"
        raise DataLayoutError(top, f"{expected}, found {content or 'nothing'}")
    if len(roots) > 1:
        names = shorten([folder.name for folder in roots])
        raise DataLayoutError(top, f"holds several datasets ({names}); name one of them")
    if not (roots[0] / IMAGES).is_dir():
        raise DataLayoutError(roots[0], f"{IMAGES}/ is missing")
    return roots[0]


def list_splits(
    root: Path, folder: str = LISTS, annotations: str = XML, suffix: str = ".xml"
) -> dict[str, list[str]]:
    """Return {split: file names without suffix}.

    They are those of the lists in `folder`; without lists, all files in `annotations` are "train".
    """
    lists = {split: _read_list(root / folder / f"{split}.txt") for split in (*SPLITS, "trainval")}
    if lists["train"] is None and lists["trainval"] is not None:
        held_out = set(lists["val"] or [])
        lists["train"] = [stem for stem in lists["trainval"] if stem not in held_out]
    splits = {split: stems for split in SPLITS if (stems := lists[split]) is not None}
    if splits:
        return splits
    names = [
        name
        for name in os.listdir(root / annotations)
        if name.lower().endswith(suffix) and not is_hidden(name)
    ]
    return {"train": sorted(name[: -len(suffix)] for name in names)}


def list_images(root: Path) -> dict[str, list[str]]:
    """Return {name without suffix: file names in JPEGImages/}."""
    files: dict[str, list[str]] = {}
    for name in sorted(os.listdir(root / IMAGES)):
        if name.lower().endswith(IMAGE_SUFFIXES) and not is_hidden(name):
            files.setdefault(os.path.splitext(name)[0], []).append(name)
    return files


def image_problem(files: Sequence[str]) -> str | None:
    """Return the problem of the image files of one name, or None for exactly one file."""
    if len(files) == 1:
        return None
    why = f"several images of this name: {', '.join(files)}" if files else "no image of this name"
    return f"{why} in {IMAGES}/"


def _read_list(path: Path) -> list[str] | None:
    """Return the names in a list, each once, or None without the file."""
    try:
        text = read_text(path)
    except FileNotFoundError:
        return None
    except NotText as error:
        raise DataLayoutError(path, str(error)) from None
    return list(dict.fromkeys(line.strip() for line in text.split("\n") if line.strip()))


class _Reader:
    """Reader of annotations, one after the other; those that cannot be used go to the report.

    Attributes:
        builders: {split: DetectionIndexBuilder} of the images read so far.
    """

    def __init__(self, root: Path, report: ConversionReport, difficult: str) -> None:
        self.root, self.report, self.difficult = root, report, difficult
        self.builders: dict[str, DetectionIndexBuilder] = {}
        self.class_numbers: dict[str, int] = {}
        self.files = list_images(root)

    def add(self, split: str, stem: str) -> None:
        """Add one image with its boxes."""
        images = self.root / IMAGES
        builder = self.builders.setdefault(
            split, DetectionIndexBuilder(self.root, images, self.class_numbers)
        )
        xml = self.root / XML / f"{stem}.xml"
        files = self.files.get(stem, [])
        try:
            annotation = read_voc_xml(xml)
            if why := image_problem(files):
                raise InvalidAnnotation(why)
            size_hw = read_size(images / files[0])
            if annotation.size_hw not in (None, size_hw):
                stated, real = ("{1} x {0}".format(*size) for size in (annotation.size_hw, size_hw))
                raise InvalidAnnotation(
                    f"<size> is {stated}, but {IMAGES}/{files[0]} is {real} "
                    "(width x height, upright)"
                )
        except UnreadableImage as error:
            self.report.add_problem(error.path, error.why)
        except InvalidAnnotation as error:
            self.report.add_problem(xml, str(error))
        except OSError as error:
            self.report.add_problem(xml, f"{error.strerror} (listed for {split})")
        else:
            builder.add(files[0], size_hw, *self.select_objects(annotation, size_hw, xml))

    def select_objects(
        self, annotation: VocAnnotation, size_hw: tuple[int, int], xml: Path
    ) -> tuple[NDArray[np.float64], list[str], list[bool]]:
        """Return (boxes [G, 4] xywh, class names, crowd) of the objects to convert."""
        boxes, inside = annotation.boxes_in(*size_hw)
        selected = []
        for i, (box, is_difficult) in enumerate(zip(boxes, annotation.difficult, strict=True)):
            place = f"{xml}: object {i + 1} ({annotation.class_names[i]})"
            if box[2:].min() <= 0:
                self.report.add_note(place, "empty box, left out")
                continue
            if is_difficult and self.difficult == "drop":
                self.report.add_note(place, "difficult, left out")
                continue
            if not inside[i]:
                self.report.add_note(place, "box reaches beyond the image, clipped")
            selected.append(i)
        crowd = [annotation.difficult[i] and self.difficult == "crowd" for i in selected]
        return boxes[selected], [annotation.class_names[i] for i in selected], crowd
