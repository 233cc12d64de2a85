"""Where the splits of a data folder lie, and the error for a folder that is laid out otherwise."""

import contextlib
import os
from pathlib import Path

SPLIT_FOLDERS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


class DataLayoutError(ValueError):
    """A data folder that is not laid out as expected. path: the folder; why: what is wrong, in one line."""

    def __init__(self, path, why):
        super().__init__(f"{path}: {why}")
        self.path, self.why = str(path), why

    def __reduce__(self):
        return type(self), (self.path, self.why)


def find_split(data, split):
    """The folder of a split ("train", "val" or "test"), or None where there is none."""
    data = Path(data)
    if not data.is_dir():
        raise DataLayoutError(data, "not a folder" if data.exists() else "no such folder")
    found = [data / name for name in SPLIT_FOLDERS[split] if (data / name).is_dir()]
    if len(found) > 1:
        raise DataLayoutError(
            data, f"holds both {found[0].name}/ and {found[1].name}/, which mean the same; keep one"
        )
    return found[0] if found else None


def require_split(data, split, expected="<class>/*.jpg"):
    """Like find_split, but a missing split is an error that says what was expected and what is there instead."""
    folder = find_split(data, split)
    if folder:
        return folder
    there = sorted(entry.name for entry in os.scandir(data) if not is_hidden(entry.name))
    hint = nearby(data, lambda folder: has_classes(find_split(folder, split)))
    raise DataLayoutError(
        data,
        f"expected {SPLIT_FOLDERS[split][0]}/{expected}, found {shorten(there) or 'nothing'}{hint}",
    )


def nearby(data, fits):
    """The end of a message, "; did you mean FOLDER?": the only one right below `data` that fits, or the nearest of two above; or "".

    fits(folder): whether it is laid out as expected; a DataLayoutError counts as no.
    """
    data = Path(data)

    def is_right(folder):
        with contextlib.suppress(DataLayoutError, OSError):
            return bool(fits(folder))
        return False

    below = [
        Path(entry) for entry in os.scandir(data) if entry.is_dir() and not is_hidden(entry.name)
    ]
    right = [folder for folder in below if is_right(folder)]
    if not right:
        right = [folder for folder in data.parents[:2] if is_right(folder)][:1]
    return f"; did you mean {right[0]}?" if len(right) == 1 else ""


def has_classes(folder):
    """Whether there are folders in this one, which may be None."""
    return folder is not None and any(
        entry.is_dir() and not is_hidden(entry.name) for entry in os.scandir(folder)
    )


def is_hidden(name):
    """Names that hold no data: dotfiles, and the folder macOS adds to archives."""
    return name.startswith(".") or name == "__MACOSX"


def shorten(names, most=5):
    """The first few names, for a message of one line."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
