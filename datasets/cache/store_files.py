"""The files of an image store: for each image a raw one and a json that says what it was made of.

Each is written under another name, brought to the disk and renamed: whatever is there under its own
name is whole.
"""

import fcntl
import hashlib
import json
import os
from contextlib import contextmanager
from pathlib import Path

import numpy as np

UNFINISHED = ".unfinished"
OTHER_WAYS = "make room, set XDG_CACHE_HOME to a folder elsewhere, or decode every image anew with --cache none"


class CacheError(ValueError):
    """A cache that cannot be written. path: the folder; why: what is wrong and what to do, in one line."""

    def __init__(self, path, why):
        super().__init__(f"{path}: {why}")
        self.path, self.why = str(path), why


def cache_folder():
    """The folder that all stores lie in; it need not exist."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "visionloop" / "images"


def current_entry(folder, name, path):
    """What the json says about the image of a file; None unless it is whole and of the file as it is now."""
    entry = read_entry(folder, name)
    if entry is None:
        return None
    try:
        source, raw = os.stat(path), os.stat(folder / entry["raw"])
    except OSError:
        return None
    is_current = (entry["bytes"], entry["mtime_ns"]) == (source.st_size, source.st_mtime_ns)
    return entry if is_current and raw.st_size == 3 * entry["height"] * entry["width"] else None


def read_entry(folder, name):
    """The json of an image; None where there is none."""
    try:
        return json.loads((folder / f"{digest(name)}.json").read_bytes())
    except OSError:
        return None


def make_entry(folder, name, path, make, whole=None):
    """Write the image of a file and its json, under the lock: what the json says, or None where the file cannot be read.

    make, whole: see Contents.
    """
    try:
        source = os.stat(path)  # before it is read: a change after that is seen next time
        image, whole_hw = make(path), whole(path) if whole else None
    except OSError:
        return None
    height, width = image.shape[:2]
    # a name of its own for each version: who reads the old one or asks the json in between sees no
    # mixture
    raw = f"{digest(name)}-{digest(f'{source.st_size} {source.st_mtime_ns}')}.raw"
    entry = {
        "source": name,
        "bytes": source.st_size,
        "mtime_ns": source.st_mtime_ns,
        "height": height,
        "width": width,
        "raw": raw,
    }
    if whole_hw:
        entry["whole"] = whole_hw
    former = read_entry(folder, name)
    _write_whole(folder / raw, np.ascontiguousarray(image).data)
    _write_whole(folder / f"{digest(name)}.json", json.dumps(entry).encode())
    if former and former["raw"] != raw:
        (folder / former["raw"]).unlink(missing_ok=True)
    return entry


def _write_whole(path, data):
    """Write under another name and rename once it is on the disk."""
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
def locked(folder):
    """Alone with a store's folder, which is made where there is none; waits for another process that is at it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / ".lock", "w") as file:
            fcntl.lockf(file, fcntl.LOCK_EX)
            for left_over in folder.glob(f"*{UNFINISHED}"):  # of a process that was killed
                left_over.unlink()
            yield
    except OSError as error:
        raise CacheError(folder, f"cannot be written ({error.strerror}); {OTHER_WAYS}") from None


def digest(text):
    return hashlib.blake2b(os.fsencode(text), digest_size=8).hexdigest()
