"""Where the splits of a data folder lie, and the error for a folder that is laid out otherwise."""

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
        raise DataLayoutError(data, f"holds both {found[0].name}/ and {found[1].name}/, which mean the same; keep one")
    return found[0] if found else None


def require_split(data, split, expected="<class>/*.jpg"):
    """Like find_split, but a missing split is an error that says what was expected and what is there instead."""
    folder = find_split(data, split)
    if folder:
        return folder
    there = sorted(entry.name for entry in os.scandir(data) if not is_hidden(entry.name))
    raise DataLayoutError(data, f"expected {SPLIT_FOLDERS[split][0]}/{expected}, found {shorten(there) or 'nothing'}")


def is_hidden(name):
    """Names that hold no data: dotfiles, and the folder macOS adds to archives."""
    return name.startswith(".") or name == "__MACOSX"


def shorten(names, most=5):
    """The first few names, for a message of one line."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
