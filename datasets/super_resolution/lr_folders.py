"""Folders of low-resolution images beside the high-resolution ones, as datasets name them.

`LR_x2/` is ours; there are also `LR_bicubic/X2/` of DIV2K, `LRBI/x2/`, `lr_x2/`, `LRx2/`, `X2/` and
`LR/`.
"""

import os
import re
from dataclasses import dataclass

from visionloop.datasets.io.layout import DataLayoutError, is_hidden

HR = "HR"
# in lower case
LOW = re.compile(r"(?<![a-z])(lr|lq|low)")
SCALE = re.compile(r"x_?(\d+)(?![a-z\d])|(?<!\d)(\d+)x(?![a-z\d])|(?:lr|lq)[ _.-]?(\d+)$")


@dataclass(frozen=True)
class LrFolder:
    """A folder of low-resolution images.

    Attributes:
        name: relative to the split's folder.
        scale: that its name tells, None for a name such as LR.
    """

    name: str
    scale: int | None


def lr_folder_name(scale: int) -> str:
    """Return the name of the folder of the low-resolution images."""
    return f"LR_x{scale}"


def hr_folder_name(split_folder: str | os.PathLike[str]) -> str:
    """Return the name of the folder of the high-resolution images, HR in any case."""
    names = [name for name in folders_in(split_folder) if name.upper() == HR]
    return names[0] if len(names) == 1 else HR


def find_lr_folders(split_folder: str | os.PathLike[str]) -> list[LrFolder]:
    """Return all folders of low-resolution images in the folder of a split, sorted by name."""
    found = []
    for name in folders_in(split_folder):
        scale = scale_of(name)
        if scale is None and not LOW.search(name.lower()):
            continue
        inner = folders_in(os.path.join(split_folder, name)) if scale is None else []
        scaled = [(f"{name}/{folder}", scale_of(folder)) for folder in inner]
        below = [LrFolder(path, number) for path, number in scaled if number is not None]
        found += below or [LrFolder(name, scale)]
    return found


def scale_of(name: str) -> int | None:
    """Return the scale in the name of a folder, as in LR_x2, LR_bicubic_X2 and 2x; else None."""
    name = name.lower()
    match = SCALE.search(name) if LOW.search(name) else SCALE.fullmatch(name)
    return int(next(filter(None, match.groups()))) if match else None


def choose_lr_folder(split_folder: str | os.PathLike[str], scale: int) -> LrFolder | None:
    """Return the folder of the low-resolution images of a scale, None without one.

    The name `LR_x<scale>` comes first, then other names with the scale, then one without any, whose
    images have to be compared with the high-resolution ones.

    Raises:
        DataLayoutError: for two folders that it may be.
    """
    folders = find_lr_folders(split_folder)
    named = [folder for folder in folders if folder.name == lr_folder_name(scale)]
    for candidates in (
        named,
        [folder for folder in folders if folder.scale == scale],
        [folder for folder in folders if folder.scale is None],
    ):
        if len(candidates) > 1:
            raise DataLayoutError(
                split_folder,
                f"holds both {candidates[0].name}/ and {candidates[1].name}/, which may be the "
                f"small images of x{scale}; name the right one {lr_folder_name(scale)}",
            )
        if candidates:
            return candidates[0]
    return None


def folders_in(folder: str | os.PathLike[str]) -> list[str]:
    """Return the names of the folders in a folder, sorted."""
    with os.scandir(folder) as entries:
        return sorted(
            entry.name
            for entry in entries
            if not is_hidden(entry.name) and os.path.isdir(entry.path)
        )
