"""The files of an image store: a raw file for each image and a JSON file that describes its source.

Each is written under another name, flushed to disk and renamed: a file under its own name is
complete.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from visionloop.datasets.io.images import DECODING

Decode: TypeAlias = Callable[[str], NDArray[np.uint8]]
Measure: TypeAlias = Callable[[str], tuple[int, int]]
# the JSON file of an image; see `make_entry`
Entry: TypeAlias = dict[str, Any]  # type: ignore[explicit-any]

UNFINISHED = ".unfinished"
STORAGE_HINT = (
    "make room, set XDG_CACHE_HOME to a folder elsewhere, or decode every image anew with "
    "--cache none"
)


class CacheError(ValueError):
    """A cache that cannot be written.

    Attributes:
        path: the folder.
        why: the problem and its solution, in one line.
    """

    def __init__(self, path: str | os.PathLike[str], why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path, self.why = str(path), why


def cache_folder() -> Path:
    """Return the folder of all stores; it need not exist."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "visionloop" / "images"


def current_entry(folder: Path, name: str, path: str) -> Entry | None:
    """Return the entry of an image, or None unless it is complete and would be the same today.

    Its source must be unchanged, and decoded as this version decodes.

    Args:
        folder: of the store.
        name: of the source file, relative to its folder.
        path: of the source file.
    """
    entry = read_entry(folder, name)
    if entry is None:
        return None
    try:
        source, raw = os.stat(path), os.stat(folder / entry["raw"])
    except OSError:
        return None
    made_from = entry["bytes"], entry["mtime_ns"], entry.get("decoding")
    is_current = made_from == (source.st_size, source.st_mtime_ns, DECODING)
    return entry if is_current and raw.st_size == 3 * entry["height"] * entry["width"] else None


def read_entry(folder: Path, name: str) -> Entry | None:
    """Return the JSON of an image, or None without one."""
    try:
        entry: Entry = json.loads((folder / f"{digest(name)}.json").read_bytes())
    except OSError:
        return None
    return entry


def make_entry(
    folder: Path, name: str, path: str, decode: Decode, measure_full: Measure | None = None
) -> Entry | None:
    """Write the image of a file and its JSON, under the lock.

    Args:
        folder, name, path: see `current_entry`.
        decode, measure_full: see `StoreSpec`.

    Returns:
        The entry, or None when the file cannot be read.
    """
    try:
        source = os.stat(path)  # before it is read: a later change is noticed next time
        image, full_hw = decode(path), measure_full(path) if measure_full else None
    except OSError:
        return None
    height, width = image.shape[:2]
    # one name for each version: a process that reads the old one meanwhile sees no mixture
    version = digest(f"{source.st_size} {source.st_mtime_ns} {DECODING}")
    raw = f"{digest(name)}-{version}.raw"
    entry: Entry = {
        "source": name,
        "bytes": source.st_size,
        "mtime_ns": source.st_mtime_ns,
        "decoding": DECODING,
        "height": height,
        "width": width,
        "raw": raw,
    }
    if full_hw:
        entry["full_hw"] = full_hw
    former = read_entry(folder, name)
    _replace_file(folder / raw, np.ascontiguousarray(image).data)
    _replace_file(folder / f"{digest(name)}.json", json.dumps(entry).encode())
    if former and former["raw"] != raw:
        (folder / former["raw"]).unlink(missing_ok=True)
    return entry


def _replace_file(path: Path, data: bytes | memoryview) -> None:
    """Write under another name and rename once the data is on disk."""
    unfinished = path.with_name(path.name + UNFINISHED)
    try:
        with open(unfinished, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a store's folder, which is created if it is missing.

    Waits for another process that holds it, and removes unfinished files.

    Raises:
        CacheError: when the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / ".lock", "w") as file:
            fcntl.lockf(file, fcntl.LOCK_EX)
            for unfinished in folder.glob(f"*{UNFINISHED}"):  # of a process that was killed
                unfinished.unlink()
            yield
    except OSError as error:
        raise CacheError(folder, f"cannot be written ({error.strerror}); {STORAGE_HINT}") from None


def digest(text: str) -> str:
    """Return a hash of a path or name, 16 hexadecimal digits."""
    return hashlib.blake2b(os.fsencode(text), digest_size=8).hexdigest()
