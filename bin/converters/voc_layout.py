"""Places of Pascal VOC's files, in its own layout and in those of labelImg and Roboflow."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from visionloop.bin.converters.image_files import ImageFiles
from visionloop.datasets.io.layout import DataLayoutError, find_split, is_hidden, shorten
from visionloop.datasets.io.names import FileFinder
from visionloop.datasets.io.paths import files_below
from visionloop.datasets.io.text import NotText, read_text

SPLITS = ("train", "val", "test")
XML, IMAGES, LISTS = "Annotations", "JPEGImages", "ImageSets/Main"
IMAGE_FOLDERS = (IMAGES, "images")  # in any case


@dataclass(frozen=True)
class VocFiles:
    """The files of one split.

    Attributes:
        annotations: folder of the xml files.
        stems: their paths without suffix, relative to the folder.
        images: the images.
    """

    annotations: Path
    stems: list[str]
    images: ImageFiles

    @cached_property
    def finder(self) -> FileFinder:
        """Finder of the xml files."""
        return FileFinder(self.annotations)

    def unannotated(self) -> list[str]:
        """Return the paths of the images that no xml belongs to."""
        used = {name for stem in self.stems for name in self.images.find(stem)}
        return [
            os.fspath(self.images.folder / name) for name in self.images.names if name not in used
        ]


def find_voc_splits(source: str) -> tuple[dict[str, VocFiles], bool]:
    """Return ({split: VocFiles}, whether lists name the images of each split).

    These are Annotations/ and JPEGImages/ (or images/) with the lists of ImageSets/Main; without
    such folders train/, valid/ and test/, as Roboflow writes them, or a whole folder, as labelImg
    leaves it, with each xml beside its image or in a folder of its own.

    Raises:
        DataLayoutError: for a folder without annotations.
    """
    top = Path(source)
    in_datasets = find_annotations(top, XML)
    folders = {split: folder for split in SPLITS if (folder := find_split(top, split))}
    in_datasets = [path for path in in_datasets if path.parent not in folders.values()]
    if len(in_datasets) == 1 and (folder := image_folder(in_datasets[0].parent)):
        (annotations,), images = in_datasets, ImageFiles(folder)
        lists = list_splits(annotations)
        splits = {split: VocFiles(annotations, stems, images) for split, stems in lists.items()}
        return splits, (annotations.parent / LISTS).is_dir()
    require_one_dataset(top, in_datasets)
    splits = {split: _files_of(folder) for split, folder in folders.items()}
    splits = {split: files for split, files in splits.items() if files.stems}
    whole = {} if splits else {"train": _files_of(top)}
    if not splits and not whole["train"].stems:
        content = shorten(sorted(name for name in os.listdir(top) if not is_hidden(name)))
        raise DataLayoutError(
            top,
            f"expected {XML}/*.xml and {IMAGES}/, or an xml beside each image, also in train/ and "
            f"valid/; found {content or 'nothing'}",
        )
    return splits or whole, False


def _files_of(folder: Path) -> VocFiles:
    """Return the xml files and images at any depth below a folder."""
    stems = [os.path.splitext(name)[0] for name in files_below(folder, (".xml",))]
    return VocFiles(folder, stems, ImageFiles(folder))


def find_voc_folders(source: str, annotations: str, suffix: str) -> tuple[Path, Path]:
    """Return the folders `annotations`/ and JPEGImages/ of a dataset.

    They are in `source`, or in a folder below it such as VOCdevkit/VOC2007.

    Args:
        source: folder to search.
        annotations: name of the folder of annotations.
        suffix: of the files in it, for the message.

    Raises:
        DataLayoutError: without exactly one such folder.
    """
    top = Path(source)
    found = find_annotations(top, annotations)
    if not found:
        content = shorten(sorted(name for name in os.listdir(top) if not is_hidden(name)))
        expected = f"expected {annotations}/*{suffix} and {IMAGES}/"
        raise DataLayoutError(top, f"{expected}, found {content or 'nothing'}")
    require_one_dataset(top, found)
    images = image_folder(found[0].parent)
    if images is None:
        raise DataLayoutError(found[0].parent, f"{IMAGES}/ is missing")
    return found[0], images


def find_annotations(top: Path, name: str) -> list[Path]:
    """Return the folders of annotations of all datasets. Raises DataLayoutError without `top`."""
    if not top.is_dir():
        raise DataLayoutError(top, "not a folder" if top.exists() else "no such folder")
    below = (*sorted(top.glob("*")), *sorted(top.glob("VOCdevkit/*")))
    candidates = (top, *(folder for folder in below if not is_hidden(folder.name)))
    return [found for folder in candidates if (found := child_folder(folder, name))]


def require_one_dataset(top: Path, annotations: Sequence[Path]) -> None:
    """Raise DataLayoutError for the annotations of several datasets."""
    if len(annotations) > 1:
        names = shorten([path.parent.name for path in annotations])
        raise DataLayoutError(top, f"holds several datasets ({names}); name one of them")


def child_folder(folder: Path, name: str) -> Path | None:
    """Return a folder in another one, whose name may be written in any case, or None."""
    found = FileFinder(folder).find(name)
    return folder / found if found and (folder / found).is_dir() else None


def image_folder(root: Path) -> Path | None:
    """Return the folder of the images of a dataset, or None."""
    folders = (child_folder(root, name) for name in IMAGE_FOLDERS)
    return next((folder for folder in folders if folder), None)


def list_splits(
    annotations: Path, folder: str = LISTS, suffix: str = ".xml"
) -> dict[str, list[str]]:
    """Return {split: file names without suffix}.

    They are those of the lists in `folder` of the dataset; without lists, all files in
    `annotations` are "train".
    """
    lists_folder = annotations.parent / folder
    lists = {split: _read_list(lists_folder / f"{split}.txt") for split in (*SPLITS, "trainval")}
    if lists["train"] is None and lists["trainval"] is not None:
        held_out = set(lists["val"] or [])
        lists["train"] = [stem for stem in lists["trainval"] if stem not in held_out]
    splits = {split: stems for split in SPLITS if (stems := lists[split]) is not None}
    if splits:
        return splits
    return {"train": [os.path.splitext(name)[0] for name in files_below(annotations, (suffix,))]}


def image_problem(files: Sequence[str], folder: Path) -> str | None:
    """Return the problem of the image files of one name, or None for exactly one file."""
    if len(files) == 1:
        return None
    why = f"several images of this name: {', '.join(files)}" if files else "no image of this name"
    return f"{why} in {folder.name}/"


def _read_list(path: Path) -> list[str] | None:
    """Return the names in a list, each once, or None without the file."""
    try:
        text = read_text(path)
    except FileNotFoundError:
        return None
    except NotText as error:
        raise DataLayoutError(path, str(error)) from None
    return list(dict.fromkeys(line.strip() for line in text.split("\n") if line.strip()))
