"""Folders below the data roots: a bounded search for data sets, and listings to browse."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from visionloop.bin.web.tables.data_sets import Budget, DataSet
from visionloop.bin.web.tables.layouts import recognise
from visionloop.datasets.io.layout import is_hidden
from visionloop.datasets.io.names import is_unicode

MAX_DEPTH = 4
MAX_FOLDERS = 2000  # that one search looks into
MAX_DATA_SETS = 500
SEARCH_SECONDS, LISTING_SECONDS = 3.0, 1.0
ENTRIES_OF_ONE = 100_000  # files that are counted of one data set
SECONDS_OF_ONE = 0.5
MAX_LISTED = 1000


@dataclass(frozen=True)
class Search:
    """Data sets of a search. is_complete: False where a limit ended it."""

    data_sets: list[DataSet]
    is_complete: bool


@dataclass(frozen=True)
class Listing:
    """Folders in a folder. folders: [(folder, data sets that it is)]; is_complete: not cut off."""

    folders: list[tuple[Path, list[DataSet]]]
    is_complete: bool


def search(roots: Sequence[Path]) -> Search:
    """Find the data sets below the roots, the nearest to a root first, in order of path.

    Links out of the roots are not followed, and no data set is looked for inside another.
    """
    budget, found = Budget(MAX_FOLDERS, SEARCH_SECONDS), list[DataSet]()
    level, seen = [(root, root) for root in roots], set(roots)
    for _ in range(MAX_DEPTH + 1):
        below: list[tuple[Path, Path]] = []
        for folder, root in level:
            if not budget.spend() or len(found) >= MAX_DATA_SETS:
                return Search(found, is_complete=False)
            data_sets = recognise(folder, Budget(ENTRIES_OF_ONE, SECONDS_OF_ONE))
            found += data_sets
            if data_sets or is_run(folder):
                continue
            for path in folders_below(folder, root):
                if path.resolve() not in seen:
                    seen.add(path.resolve())
                    below.append((path, root))
        level = below
    return Search(found, is_complete=not level)


def list_folder(folder: Path, root: Path) -> Listing:
    """List the folders in a folder, with the data sets that they are."""
    budget = Budget(MAX_FOLDERS, LISTING_SECONDS)
    paths = list(folders_below(folder, root))
    rows = [
        (path, [] if budget.is_spent else recognise(path, Budget(ENTRIES_OF_ONE // 100, 0.1)))
        for path in paths[:MAX_LISTED]
    ]
    return Listing(rows, is_complete=len(paths) <= MAX_LISTED)


def folders_below(folder: Path, root: Path) -> Iterator[Path]:
    """Yield the folders in a folder in order of name, without those that may not be named.

    These are hidden ones, those with a name that is no Unicode, which JSON has no text for, and
    links out of the root.
    """
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    except OSError:
        return
    for name in names:
        path = folder / name
        if not is_hidden(name) and is_unicode(name) and path.resolve().is_relative_to(root):
            yield path


def is_run(folder: Path) -> bool:
    """Return whether a folder is that of a run, whose images of evaluations are no data set."""
    return (folder / "settings.json").is_file() and (folder / "status.json").is_file()
