"""manifest.json of a checkpoint folder: the size and SHA-256 of every file, and of itself."""

import hashlib
import json
from pathlib import PurePosixPath

MANIFEST = "manifest.json"
SCHEMA = 1
LONGEST_READ = 16 * 2**20  # bytes of a manifest: nobody's has that many files


def make_manifest(folder):
    """The content of manifest.json for the files that are in `folder` now."""
    files = {
        path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MANIFEST
    }
    return {"schema": SCHEMA, "files": files, "sha256": _hash_of(files)}


def sha256(path):
    """The hash of a file's content, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(folder):
    """The content of a folder's manifest.json, every entry with size and hash; None where there is none that can be read."""
    try:
        with open(folder / MANIFEST, "rb") as file:
            content = json.loads(file.read(LONGEST_READ))
        is_whole = all({"size", "sha256"} <= entry.keys() for entry in content["files"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return content if is_whole else None


def problems(folder):
    """What is wrong with a checkpoint folder: [] when every file of its manifest is there with its size and hash.

    Files that the manifest does not name are nobody's business: people leave notes there.
    """
    content = read_manifest(folder)
    if content is None:
        return [f"{MANIFEST}: missing or unreadable"]
    files = content["files"]
    if (
        content.keys() != {"schema", "files", "sha256"}
        or content["schema"] != SCHEMA
        or content["sha256"] != _hash_of(files)
        or not files
    ):
        return [f"{MANIFEST}: content changed"]
    found = {
        name: _wrong_with(folder, name, entry["size"], entry["sha256"])
        for name, entry in files.items()
    }
    return [f"{name}: {wrong}" for name, wrong in found.items() if wrong]


def _wrong_with(folder, name, size, digest):
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        return "named by the manifest, outside of the folder"
    path = folder / name
    try:
        if not path.is_file():
            return "missing"
        if path.stat().st_size != size:
            return f"{path.stat().st_size} bytes, expected {size}"
        return None if sha256(path) == digest else "content changed (SHA-256 differs)"
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        return f"cannot be read ({error})"


def _hash_of(files):
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
