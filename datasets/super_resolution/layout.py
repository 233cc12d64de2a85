"""Places of the images of super-resolution: `train/HR/x.png`, optionally `train/LR_x2/x.png`."""

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from visionloop.datasets.io.folders import (
    IMAGE_SUFFIXES,
    no_images,
)
from visionloop.datasets.io.images import read_size
from visionloop.datasets.io.layout import (
    SPLIT_FOLDERS,
    DataLayoutError,
    find_split,
    is_hidden,
    shorten,
    suggest_folder,
)
from visionloop.datasets.io.names import path_stem
from visionloop.datasets.io.paths import (
    PathIndex,
    Rows,
    files_below,
    hash_columns,
    hash_paths,
    join_paths,
    list_files,
    refuse_duplicate_stems,
)
from visionloop.datasets.super_resolution.lr_folders import (
    HR,
    LrFolder,
    choose_lr_folder,
    find_lr_folders,
    folders_in,
    hr_folder_name,
    lr_folder_name,
)

SAME_IMAGE = "belong to one large image"


@dataclass(frozen=True, eq=False)
class SuperResolutionIndex(PathIndex):
    """The high-resolution images of a split, sorted by path, and the low-resolution ones if any.

    Attributes:
        scale: high over low resolution; 1 for restoration at the same size.
        sizes: of the files in bytes, int64 [N].
        lr_folder: of the low-resolution images; None: they are computed from the others.
        lr_paths, lr_starts, lr_stops, lr_sizes: the same of the low-resolution images; None
            without them.
    """

    scale: int
    sizes: NDArray[np.int64]
    lr_folder: str | None = None
    lr_paths: bytes = b""
    lr_starts: NDArray[np.int64] | None = None
    lr_stops: NDArray[np.int64] | None = None
    lr_sizes: NDArray[np.int64] | None = None

    def lr_name(self, i: int) -> str:
        """Return the path of low-resolution image i relative to its folder, which must be there."""
        assert self.lr_starts is not None and self.lr_stops is not None
        return os.fsdecode(self.lr_paths[self.lr_starts[i] : self.lr_stops[i]])

    def lr_path(self, i: int) -> str:
        """Return the path of low-resolution image i, whose folder must be there."""
        assert self.lr_folder is not None
        return os.path.join(self.lr_folder, self.lr_name(i))

    def subset(self, rows: Rows) -> "SuperResolutionIndex":
        """Return the index of these images alone, in this order; the paths are shared."""
        lr_columns = ("lr_starts", "lr_stops", "lr_sizes") if self.lr_folder else ()
        return self.select(rows, ("starts", "stops", "sizes", *lr_columns))

    def fingerprint(self) -> str:
        """Return the SHA-256 of the scale, relative paths and file sizes, in order.

        Those of the low-resolution images are included where they are used. Contents and the
        folder's own path are left out: a copy is the same data, an edit that keeps a file's size is
        not noticed.
        """
        digest = hashlib.sha256(f"x{self.scale} {'given' if self.lr_folder else 'made'}".encode())
        hash_columns(digest, (self.stops - self.starts, self.sizes))
        hash_paths(digest, self.paths, self.starts, self.stops)
        if self.lr_starts is not None and self.lr_stops is not None and self.lr_sizes is not None:
            hash_columns(digest, (self.lr_stops - self.lr_starts, self.lr_sizes))
            hash_paths(digest, self.lr_paths, self.lr_starts, self.lr_stops)
        return digest.hexdigest()


def find_super_resolution_split(
    data: str | os.PathLike[str], split: str, scale: int
) -> SuperResolutionIndex | None:
    """Read the SuperResolutionIndex of a split, or return None without the split.

    Args:
        data: the data folder.
        split: "train", "val" or "test".
        scale: 1 reads the high-resolution images alone; any other takes the low-resolution ones of
            `LR_x<scale>/` or a folder of another such name, if there is one; see lr_folders.py.

    Raises:
        DataLayoutError: one line with the first error.
    """
    folder = find_split(data, split)
    if folder is None:
        return None
    hr_folder = folder / hr_folder_name(folder)
    if not hr_folder.is_dir():
        raise DataLayoutError(folder, f"expected {HR}/x.png in it, found {_list_folder(folder)}")
    images, others = list_files(hr_folder, IMAGE_SUFFIXES)
    if not images:
        raise DataLayoutError(hr_folder, no_images(others, hr_folder, IMAGE_SUFFIXES, ".png"))
    index = SuperResolutionIndex(
        folder=os.fspath(hr_folder),
        scale=scale,
        sizes=np.fromiter(images.values(), dtype=np.int64, count=len(images)),
        **join_paths([os.fsencode(name) for name in images]),
        passed_over=others,
    )
    lr_folder = choose_lr_folder(folder, scale) if scale > 1 else None
    if lr_folder is None:
        return index
    index = _match_lr_images(index, list(images), os.path.join(folder, lr_folder.name))
    if lr_folder.name != lr_folder_name(scale):
        _compare_first_pair(index, lr_folder)
    return index


def require_super_resolution_split(
    data: str | os.PathLike[str], split: str, scale: int
) -> SuperResolutionIndex:
    """Read the SuperResolutionIndex of a split; arguments as for find_super_resolution_split.

    Raises:
        DataLayoutError: also without the split, with what is there instead.
    """
    index = find_super_resolution_split(data, split, scale)
    if index is not None:
        return index

    def has_hr(folder: Path) -> bool:
        split_folder = find_split(folder, split)
        return split_folder is not None and (split_folder / hr_folder_name(split_folder)).is_dir()

    raise DataLayoutError(
        data,
        f"expected {SPLIT_FOLDERS[split][0]}/{HR}/x.png, found {_list_folder(data)}"
        f"{suggest_folder(data, has_hr)}",
    )


def unused_lr_folders(index: SuperResolutionIndex) -> list[LrFolder]:
    """Return the folders next to HR/ that hold low-resolution images, but for the one in use."""
    split_folder = Path(index.folder).parent
    return [
        folder
        for folder in find_lr_folders(split_folder)
        if os.path.join(split_folder, folder.name) != index.lr_folder
    ]


def other_folders(index: SuperResolutionIndex) -> list[str]:
    """Return the names of the folders next to HR/ whose names mean nothing here."""
    split_folder = Path(index.folder).parent
    known = {folder.name.split("/")[0] for folder in find_lr_folders(split_folder)}
    return [
        name for name in folders_in(split_folder) if name not in {*known, Path(index.folder).name}
    ]


def lr_without_hr(index: SuperResolutionIndex) -> list[str]:
    """Return the paths of low-resolution images without a high-resolution one."""
    if index.lr_folder is None:
        return []
    used = {index.lr_name(i) for i in range(len(index))}
    return [
        os.path.join(index.lr_folder, name)
        for name in files_below(index.lr_folder, IMAGE_SUFFIXES)
        if name not in used
    ]


def pair_mismatch(
    lr_hw: Sequence[int], hr_hw: Sequence[int], scale: int, hr_path: str
) -> str | None:
    """Return the problem when the sizes of a pair do not match, or None.

    Args:
        lr_hw, hr_hw: (height, width) of the low and the high-resolution image.
        scale: high over low resolution.
        hr_path: of the high-resolution image, for the message.
    """
    if all(0 <= hr - scale * lr < scale for lr, hr in zip(lr_hw, hr_hw, strict=True)):
        return None
    ratios = {hr // lr for lr, hr in zip(lr_hw, hr_hw, strict=True)}
    hint = (
        f": it looks like x{ratios.pop()}, not x{scale}"
        if len(ratios) == 1 and not ratios & {0, scale}
        else ""
    )
    return (
        f"is {lr_hw[0]} x {lr_hw[1]} (height x width), for {hr_path} of {hr_hw[0]} x {hr_hw[1]} "
        f"it should be {hr_hw[0] // scale} x {hr_hw[1] // scale}{hint}"
    )


def _match_lr_images(
    index: SuperResolutionIndex, names: Sequence[str], lr_folder: str
) -> SuperResolutionIndex:
    """Return the index with the low-resolution image of every row.

    Its stem may end in the scale: babyx2.png belongs to baby.png.
    """
    files = files_below(lr_folder, IMAGE_SUFFIXES)
    partner = _partners(index, names, lr_folder, files)
    missing = [name for name in names if path_stem(name) not in partner]
    if missing:
        expected = os.path.join(lr_folder, path_stem(missing[0]) + ".png")
        first = (
            f"{len(missing)} of {len(names)} images have no small one; the first is {missing[0]}"
            if len(missing) > 1
            else f"no small image for {missing[0]}"
        )
        present = f"it holds {shorten(sorted(files), 2)}" if files else "it holds no images"
        raise DataLayoutError(
            lr_folder,
            f"{first}, expected {expected}; {present}. Without the folder small images are made "
            f"from {HR}/",
        )
    matched = [partner[path_stem(name)] for name in names]
    lr_paths = join_paths([os.fsencode(name) for name in matched])
    return replace(
        index,
        lr_folder=lr_folder,
        lr_paths=lr_paths["paths"],
        lr_starts=lr_paths["starts"],
        lr_stops=lr_paths["stops"],
        lr_sizes=np.array([files[name] for name in matched], dtype=np.int64),
    )


def _compare_first_pair(index: SuperResolutionIndex, lr_folder: LrFolder) -> None:
    """Raise DataLayoutError where the first pair that can be read has sizes of another scale.

    The folder has a name that is not ours: it may be something else.
    """
    for i in range(len(index)):
        try:
            lr_hw, hr_hw = read_size(index.lr_path(i)), read_size(index.path(i))
        except OSError:
            continue  # reported when the sample is read
        why = pair_mismatch(lr_hw, hr_hw, index.scale, index.path(i))
        if why:
            raise DataLayoutError(
                index.lr_path(i),
                f"{why}; the small images of {lr_folder.name}/ do not fit --scale {index.scale}. "
                f"Name the folder by its scale, such as {lr_folder_name(4)}, or move it away: "
                f"small images are then made from {HR}/",
            )
        return


def _partners(
    index: SuperResolutionIndex, names: Sequence[str], lr_folder: str, files: dict[str, int]
) -> dict[str, str]:
    """Return {stem of a high-resolution image: name of its low-resolution image}."""
    stems = refuse_duplicate_stems(index.folder, names, "would have one small image")
    exact = refuse_duplicate_stems(lr_folder, files, SAME_IMAGE)
    marked: dict[str, str] = {}  # whose stem ends in the scale
    for name in files:
        stem = re.sub(rf"[_-]?[xX]{index.scale}$", "", path_stem(name))
        # a high-resolution image may itself be called ax2.png: then ax2.png belongs to it, and not
        # to a.png
        if path_stem(name) not in stems and marked.setdefault(stem, name) != name:
            raise DataLayoutError(lr_folder, f"{marked[stem]} and {name} {SAME_IMAGE}; keep one")
    for stem in sorted(stems):
        if stem in exact and stem in marked:
            raise DataLayoutError(
                lr_folder, f"{exact[stem]} and {marked[stem]} {SAME_IMAGE}; keep one"
            )
    return marked | exact


def _list_folder(folder: str | os.PathLike[str]) -> str:
    """Return the names in a folder, for a message."""
    names = sorted(entry.name for entry in os.scandir(folder) if not is_hidden(entry.name))
    return shorten(names) or "nothing"
