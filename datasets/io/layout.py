"""Folders of the splits of a dataset, and the error for a folder that is laid out otherwise."""

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from visionloop.datasets.io.names import FileFinder

SPLIT_FOLDERS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
# files and folders, in lower case, that no user has made: thumbnails, trash, index files
ADDED_BY_SYSTEMS = frozenset(
    {
        "__macosx",  # in archives that macOS has written
        "icon\r",
        "network trash folder",
        "temporary items",
        "@eadir",  # Synology
        "@tmp",
        "#recycle",
        "#snapshot",
        "@recycle",  # QNAP
        "@recently-snapshot",
        "$recycle.bin",  # Windows
        "system volume information",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "lost+found",  # file systems of Linux
        "__pycache__",
    }
)


class DataLayoutError(ValueError):
    """A data folder that is not laid out as expected.

    Attributes:
        path: the folder or file.
        why: the problem, in one line.
    """

    def __init__(self, path: str | os.PathLike[str], why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path, self.why = str(path), why

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.path, self.why)


def require_folder(data: Path) -> None:
    """Raise DataLayoutError unless a data folder is there, with what to do about a file."""
    if data.is_dir():
        return
    suffix, is_file = data.suffix.lower(), data.exists()
    why = "not a folder" if is_file else "no such folder"
    if suffix in (".yaml", ".yml", ".json", ".txt", ".csv"):
        why += f"; expected is the folder of the data: {data.parent}"
    elif suffix in (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"):
        why += "; extract the archive and give its folder"
    raise DataLayoutError(data, why)


def find_split(data: str | os.PathLike[str], split: str) -> Path | None:
    """Return the folder of a split ("train", "val" or "test"), or None without one.

    Raises:
        DataLayoutError: when `data` is no folder, or holds two folders for the split.
    """
    data = Path(data)
    require_folder(data)
    finder = FileFinder(data)  # CVAT calls its splits Train, Validation and Test
    names = [name for word in SPLIT_FOLDERS[split] if (name := finder.find(word))]
    folders = [data / name for name in names if (data / name).is_dir()]
    if len(folders) > 1:
        raise DataLayoutError(
            data,
            f"holds both {folders[0].name}/ and {folders[1].name}/, which mean the same; keep one",
        )
    return folders[0] if folders else None


def require_split(
    data: str | os.PathLike[str], split: str, expected: str = "<class>/*.jpg"
) -> Path:
    """Return the folder of a split.

    Args:
        data: the data folder.
        split: "train", "val" or "test".
        expected: content of the folder, for the message.

    Raises:
        DataLayoutError: without the folder, with what is there instead.
    """
    folder = find_split(data, split)
    if folder:
        return folder
    present = sorted(entry.name for entry in os.scandir(data) if not is_hidden(entry.name))
    hint = suggest_folder(data, lambda folder: has_classes(find_split(folder, split)))
    raise DataLayoutError(
        data,
        f"expected {SPLIT_FOLDERS[split][0]}/{expected}, "
        f"found {shorten(present) or 'nothing'}{hint}",
    )


def suggest_folder(data: str | os.PathLike[str], fits: Callable[[Path], object]) -> str:
    """Return "; did you mean FOLDER?" or another hint to end a message with, or "".

    The folder is the only one directly below `data` that fits, or else the nearest of two above.

    Args:
        data: the folder that does not fit.
        fits: called with a folder, true when it is laid out as expected; a DataLayoutError counts
            as false.
    """
    data = Path(data)
    if any("\\" in name for name in os.listdir(data)):
        return (
            "; names with \\ come from a zip of Windows: extract it again, for example with unzip"
        )

    def is_right(folder: Path) -> bool:
        with contextlib.suppress(DataLayoutError, OSError):
            return bool(fits(folder))
        return False

    below = [
        Path(entry) for entry in os.scandir(data) if entry.is_dir() and not is_hidden(entry.name)
    ]
    candidates = [folder for folder in below if is_right(folder)]
    if not candidates:
        candidates = [folder for folder in data.parents[:2] if is_right(folder)][:1]
    return f"; did you mean {candidates[0]}?" if len(candidates) == 1 else ""


def has_classes(folder: Path | None) -> bool:
    """Return whether a folder, which may be None, contains folders."""
    return folder is not None and any(
        entry.is_dir() and not is_hidden(entry.name) for entry in os.scandir(folder)
    )


def is_hidden(name: str) -> bool:
    """Return whether a name holds no data: dotfiles, and what systems and file servers add."""
    return name.startswith(".") or name.lower() in ADDED_BY_SYSTEMS


def shorten(names: Sequence[str], most: int = 5) -> str:
    """Join the first names of a list for a message of one line."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
