"""Decoded images on disk: a training crop costs 10 us instead of the decoding of a file.

Each image is one raw file, uint8 [H, W, 3], with a JSON file next to it that describes its source.
They are in the user's cache folder, `$XDG_CACHE_HOME/visionloop/images` or
`~/.cache/visionloop/images`, in one folder for each source folder and kind of image; any of it may
be deleted at any time and is then decoded again. All workers and all ranks of a machine share one
copy of the files in memory, which the system drops when memory is short.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from io import FileIO
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from visionloop.datasets.cache.store_files import (
    STORAGE_HINT,
    CacheError,
    Decode,
    Measure,
    cache_folder,
    current_entry,
    digest,
    locked,
    make_entry,
)
from visionloop.datasets.io.images import UnreadableImage

# files that a store keeps mapped: each holds a file descriptor, of which a process often has 1024;
# a new map takes 20 us
MAX_MAPS = 200
GIB = 2**30

Result = TypeVar("Result")


@dataclass(frozen=True)
class StoreSpec:
    """Description of a store: one image for each of some files.

    Attributes:
        kind: of the images, part of the name of the store's folder.
        folder: of the files.
        names: of the files, relative to the folder.
        decode: decode(path) returns the image, uint8 [H, W, 3]; raises OSError.
        measure: measure(path) returns its (height, width), quickly; raises OSError.
        measure_full: measure_full(path) returns the (height, width) of the image that it is a
            smaller copy of; None when it is no smaller copy.
    """

    kind: str
    folder: str
    names: list[str]
    decode: Decode
    measure: Measure
    measure_full: Measure | None = None

    @property
    def store_folder(self) -> Path:
        """Folder of the images of this kind of this source folder."""
        return cache_folder() / f"{digest(os.path.realpath(self.folder))}-{self.kind}"

    def path(self, name: str) -> str:
        """Return the path of a source file."""
        return os.path.join(self.folder, name)


@dataclass(frozen=True, eq=False)
class ImageStore:
    """Decoded images to read.

    Attributes:
        folder: of the raw files.
        raw_files: bytes [N], names in the folder.
        sizes_hw: int64 [N, 2], 0 of an image that could not be read.
        full_hw: int64 [N, 2], sizes of the images that they are smaller copies of, the same as
            sizes_hw where they are none.
    """

    folder: Path
    raw_files: NDArray[np.bytes_]
    sizes_hw: NDArray[np.int64]
    full_hw: NDArray[np.int64]
    # row -> image; each process opens its own
    _maps: dict[int, NDArray[np.uint8]] = field(default_factory=dict)

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_maps": {}}

    def __contains__(self, i: int) -> bool:
        """Return whether image i could be read."""
        return bool(self.sizes_hw[i, 0])

    def size_hw(self, i: int) -> tuple[int, int]:
        """Return (height, width) of image i."""
        height, width = self.sizes_hw[i]
        return int(height), int(width)

    def image(self, i: int) -> NDArray[np.uint8]:
        """Return image i, uint8 [H, W, 3], read-only; its pixels are read when they are used.

        Raises:
            UnreadableImage: when its file is gone.
        """
        if i not in self._maps:
            if len(self._maps) >= MAX_MAPS:
                del self._maps[next(iter(self._maps))]
            self._maps[i] = self._open(i, partial(_map, (*self.size_hw(i), 3)))
        return self._maps[i]

    def read(self, i: int) -> NDArray[np.uint8]:
        """Read image i into memory, uint8 [H, W, 3].

        Faster than a new map where most of an image is used. Raises UnreadableImage.
        """
        image = np.empty((*self.size_hw(i), 3), dtype=np.uint8)
        self._open(i, partial(_read_into, image))
        return image

    def _open(self, i: int, use: Callable[[FileIO], Result]) -> Result:
        """Return use(open file of image i), which raises OSError or ValueError.

        Raises:
            UnreadableImage: instead of both, with the file.
        """
        path = os.path.join(self.folder, os.fsdecode(self.raw_files[i]))
        try:
            with open(path, "rb", buffering=0) as file:
                return use(file)
        except (OSError, ValueError) as error:
            raise UnreadableImage(
                path,
                f"the copy in the cache cannot be read ({error}); "
                "start again, and it will be decoded again",
            ) from None

    def subset(self, rows: Sequence[int] | NDArray[np.int64]) -> "ImageStore":
        """Return a store of these images alone, in this order."""
        rows = np.asarray(rows, dtype=np.int64)
        return replace(
            self,
            raw_files=self.raw_files[rows],
            sizes_hw=self.sizes_hw[rows],
            full_hw=self.full_hw[rows],
            _maps={},
        )


def _map(shape: tuple[int, ...], file: FileIO) -> NDArray[np.uint8]:
    mapped = mmap(file.fileno(), 0, access=ACCESS_READ)
    return np.frombuffer(mapped, np.uint8).reshape(shape)


def _read_into(array: NDArray[np.uint8], file: FileIO) -> None:
    if file.readinto(array.data) != array.nbytes:
        raise ValueError("it is truncated")


def open_stores(specs: Sequence[StoreSpec]) -> list[ImageStore]:
    """Decode the images that are missing or whose file has changed, and open the stores.

    Only the sizes and modification times of files are compared. The free space of the disk is
    checked before anything is written. An image that cannot be read is left out. Several processes
    may call this at once: one decodes the images, the others wait.

    Raises:
        CacheError: when the images do not fit or the folder cannot be written.
    """
    needed = sum(missing_bytes(spec) for spec in specs)
    free = free_bytes()
    if needed > free:
        why = f"{needed / GIB:.2f} GiB of decoded images do not fit, {free / GIB:.2f} GiB are free"
        raise CacheError(cache_folder(), f"{why}; {STORAGE_HINT}")
    return [_fill(spec) for spec in specs]


def missing_bytes(spec: StoreSpec) -> int:
    """Return the bytes that `open_stores` would write, without images that cannot be read."""
    total, folder = 0, spec.store_folder
    for name in spec.names:
        if current_entry(folder, name, spec.path(name)) is None:
            try:
                height, width = spec.measure(spec.path(name))
            except OSError:
                continue
            total += 3 * height * width
    return total


def free_bytes() -> int:
    """Return the free space of the disk that the cache folder is on."""
    folder = cache_folder()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _fill(spec: StoreSpec) -> ImageStore:
    """Decode the missing images and return the ImageStore."""
    folder = spec.store_folder
    entries = [current_entry(folder, name, spec.path(name)) for name in spec.names]
    stale = [i for i, entry in enumerate(entries) if entry is None]
    if stale:
        with (
            locked(folder),
            tqdm(stale, desc=f"decoding {spec.kind}", unit="image", disable=None) as bar,
        ):
            for i in bar:
                source = folder, spec.names[i], spec.path(spec.names[i])
                # another process may have decoded it by now
                entries[i] = current_entry(*source) or make_entry(
                    *source, spec.decode, spec.measure_full
                )
    sizes = [(entry["height"], entry["width"]) if entry else (0, 0) for entry in entries]
    full_sizes = [
        entry.get("full_hw", size) if entry else size
        for entry, size in zip(entries, sizes, strict=True)
    ]
    raw_files = [os.fsencode(entry["raw"]) if entry else b"" for entry in entries]
    return ImageStore(
        folder,
        np.array(raw_files, dtype=np.bytes_),
        np.array(sizes, dtype=np.int64).reshape(-1, 2),
        np.array(full_sizes, dtype=np.int64).reshape(-1, 2),
    )
