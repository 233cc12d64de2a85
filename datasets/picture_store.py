"""Decoded pictures on disk, so that a training crop costs a hundredth of a millisecond instead of a decoded file.

Each picture is one raw file, uint8 [H, W, 3], with a json beside it that says what it was made from. They lie in the user's cache
folder, `$XDG_CACHE_HOME/visionloop/pictures` or `~/.cache/visionloop/pictures`, in a folder of their own for each source folder and kind
of picture; any of it may be deleted at any time, it is made anew. Readers map the files: all loader processes and all ranks of a
machine share one copy in memory, which the system drops when memory is short.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from mmap import ACCESS_READ, mmap
from pathlib import Path

import numpy as np
from tqdm import tqdm

from visionloop.datasets.pictures import UnreadablePicture
from visionloop.datasets.stored_files import OTHER_WAYS, CacheError, cache_folder, current_entry, digest, locked, make_entry

MOST_MAPS = 200  # kept open by a store: each holds a file descriptor, of which a process often has 1024; a new one takes 20 us
GIB = 2**30


@dataclass(frozen=True)
class Contents:
    """What a store is to hold, one picture for each of some files.

    kind: a word for what is made of a file, part of the store's folder name; folder, names: of the files; make(path): the picture, uint8
    [H, W, 3], raises OSError where it cannot be read; measure(path): its (height, width), quickly, raises OSError too.
    """

    kind: str
    folder: str
    names: list[str]
    make: Callable
    measure: Callable

    @property
    def store_folder(self):
        """Where the pictures of this kind of this source folder are kept."""
        return cache_folder() / f"{digest(os.path.realpath(self.folder))}-{self.kind}"

    def path(self, name):
        return os.path.join(self.folder, name)


@dataclass(frozen=True, eq=False)
class PictureStore:
    """Pictures to read. raw_files: bytes [N], names in the folder; sizes_hw: int64 [N, 2], 0 of a picture that could not be read."""

    folder: Path
    raw_files: np.ndarray
    sizes_hw: np.ndarray
    _maps: dict = field(default_factory=dict)  # row -> picture; each process opens its own

    def __getstate__(self):
        return self.__dict__ | {"_maps": {}}

    def __contains__(self, i):
        return bool(self.sizes_hw[i, 0])

    def size_hw(self, i):
        height, width = self.sizes_hw[i]
        return int(height), int(width)

    def picture(self, i):
        """uint8 [H, W, 3], read-only and on disk until it is touched. Raises UnreadablePicture when its file is gone."""
        if i not in self._maps:
            if len(self._maps) >= MOST_MAPS:
                del self._maps[next(iter(self._maps))]
            path = self.folder / os.fsdecode(self.raw_files[i])
            try:
                with open(path, "rb", buffering=0) as file:
                    self._maps[i] = np.frombuffer(mmap(file.fileno(), 0, access=ACCESS_READ), np.uint8).reshape(*self.size_hw(i), 3)
            except (OSError, ValueError) as error:
                raise UnreadablePicture(path, f"the copy in the cache cannot be read ({error}); start again and it is made anew") from None
        return self._maps[i]

    def subset(self, rows):
        """A store of these pictures alone, in this order."""
        return replace(self, raw_files=self.raw_files[rows], sizes_hw=self.sizes_hw[rows], _maps={})


def open_stores(all_contents):
    """[PictureStore] of a list of Contents, after making what is missing or was made of a file that has changed since.

    Only the sizes and modification times of files are compared. Room on the disk is asked for before anything is written. A picture that
    cannot be read is left out. Several processes may call this at once: one makes the pictures, the others wait. Raises CacheError.
    """
    needed = sum(missing_bytes(contents) for contents in all_contents)
    free = free_bytes()
    if needed > free:
        why = f"{needed / GIB:.2f} GiB of decoded pictures do not fit, {free / GIB:.2f} GiB are free"
        raise CacheError(cache_folder(), f"{why}; {OTHER_WAYS}")
    return [_fill(contents) for contents in all_contents]


def missing_bytes(contents):
    """How much `open_stores` would write for these Contents; pictures that cannot be read count nothing."""
    total, folder = 0, contents.store_folder
    for name in contents.names:
        if current_entry(folder, name, contents.path(name)) is None:
            try:
                height, width = contents.measure(contents.path(name))
            except OSError:
                continue
            total += 3 * height * width
    return total


def free_bytes():
    """Room on the disk of the cache folder."""
    folder = cache_folder()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _fill(contents):
    """The PictureStore of these Contents, complete but for what cannot be read."""
    folder = contents.store_folder
    entries = [current_entry(folder, name, contents.path(name)) for name in contents.names]
    stale = [i for i, entry in enumerate(entries) if entry is None]
    if stale:
        with locked(folder), tqdm(stale, desc=f"decoding {contents.kind}", unit="picture", disable=None) as bar:
            for i in bar:
                source = folder, contents.names[i], contents.path(contents.names[i])
                entries[i] = current_entry(*source) or make_entry(*source, contents.make)  # another process may have made it by now
    return PictureStore(
        folder,
        np.array([os.fsencode(entry["raw"]) if entry else b"" for entry in entries], dtype=np.bytes_),
        np.array([(entry["height"], entry["width"]) if entry else (0, 0) for entry in entries], dtype=np.int64).reshape(-1, 2),
    )
