"""Paths of many images in little memory, and listings of the files in a folder."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

from visionloop.datasets.io.folders import SuffixCounts, count_suffixes, walk_folder
from visionloop.datasets.io.layout import DataLayoutError
from visionloop.datasets.io.names import path_stem

Rows: TypeAlias = Sequence[int] | NDArray[np.int64]
# a column of an index; shape and dtype: see its docstring
Column: TypeAlias = NDArray[Any]  # type: ignore[explicit-any]


class JoinedPaths(TypedDict):
    """The fields of a PathIndex that hold the paths."""

    paths: bytes
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class PathIndex:
    """Images in a fixed order, one row for each: what the index of every task has in common.

    An index is columnar, one byte string with all paths and a few arrays, so that a million images
    take tens of megabytes, and so does the copy in each worker.

    Attributes:
        folder: of the images of the split.
        paths: all paths relative to the folder, as bytes one after the other; the path of row i is
            starts[i]:stops[i].
        starts, stops: int64 [N].
        passed_over: files of the folder that are no images, by suffix, see `count_suffixes`.
    """

    folder: str
    paths: bytes
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]
    passed_over: SuffixCounts = field(default_factory=dict, kw_only=True)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.starts)

    def name(self, i: int) -> str:
        """Return the path of image i relative to the folder."""
        return os.fsdecode(self.paths[self.starts[i] : self.stops[i]])

    def path(self, i: int) -> str:
        """Return the path of image i."""
        return os.path.join(self.folder, self.name(i))

    def select(self, rows: Rows, columns: Iterable[str]) -> Self:
        """Return a copy with these rows of these columns alone; the paths are shared."""
        rows = np.asarray(rows, dtype=np.int64)
        return replace(self, **{name: getattr(self, name)[rows] for name in columns})


def hash_columns(digest: "hashlib._Hash", columns: Iterable[Column], dtype: str = "<i8") -> None:
    """Add arrays to a hash, with the same bytes on every machine."""
    for column in columns:
        digest.update(column.astype(dtype).tobytes())


def hash_paths(
    digest: "hashlib._Hash", paths: bytes, starts: NDArray[np.int64], stops: NDArray[np.int64]
) -> None:
    """Add the paths of the rows to a hash, in order."""
    rows = zip(starts.tolist(), stops.tolist(), strict=True)
    digest.update(b"".join(paths[start:stop] for start, stop in rows))


def join_paths(names: Sequence[bytes]) -> JoinedPaths:
    """Return {paths, starts, stops} of a PathIndex.

    Args:
        names: paths relative to the folder, as bytes.
    """
    lengths = np.fromiter(map(len, names), dtype=np.int64, count=len(names))
    stops = lengths.cumsum()
    return {"paths": b"".join(names), "starts": stops - lengths, "stops": stops}


def list_files(
    folder: str | os.PathLike[str], suffixes: tuple[str, ...]
) -> tuple[dict[str, int], Counter[str]]:
    """Return the files of a folder at any depth, see `walk_folder`.

    Returns:
        ({path relative to the folder: file size in bytes}, sorted by path; other files by suffix,
        see `count_suffixes`). The size of a dangling link is -1.
    """
    sizes, others = {}, Counter[str]()
    for level, names in walk_folder(folder):
        chosen = [name for name in names if name.lower().endswith(suffixes)]
        for name in chosen:
            path = os.path.join(level, name)
            relative = os.path.relpath(path, folder)
            sizes[relative] = os.stat(path).st_size if os.path.exists(path) else -1
        if len(chosen) < len(names):
            others += count_suffixes(set(names).difference(chosen))
    return dict(sorted(sizes.items())), others


def files_below(folder: str | os.PathLike[str], suffixes: tuple[str, ...]) -> dict[str, int]:
    """Return {path relative to the folder: file size in bytes}; see `list_files`."""
    return list_files(folder, suffixes)[0]


def refuse_duplicate_stems(
    folder: str | os.PathLike[str], names: Iterable[str], why: str
) -> dict[str, str]:
    """Return {stem: name} of files.

    Args:
        folder: of the files, for the message.
        names: of the files.
        why: what is wrong with two files whose names differ in their suffix alone.

    Raises:
        DataLayoutError: for two such files.
    """
    by_stem: dict[str, str] = {}
    for name in names:
        first = by_stem.setdefault(path_stem(name), name)
        if first != name:
            raise DataLayoutError(folder, f"{first} and {name} {why}; keep one")
    return by_stem
