"""The manifest.json of a checkpoint folder: the size and SHA-256 of every file, and of itself."""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from visionloop.engine.types import JsonObject

MANIFEST = "manifest.json"
SCHEMA = 1
MAX_MANIFEST_BYTES = 16 * 2**20  # to read: no checkpoint has that many files


Files = dict[str, JsonObject]  # {name: {"size", "sha256"}}


def make_manifest(folder: Path, described: Mapping[str, JsonObject] | None = None) -> JsonObject:
    """Build the content of manifest.json for the files that are in `folder` now.

    described: files that need not be read again, {name: its description}.
    """
    paths = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MANIFEST
    }
    files: Files = {
        name: (described or {}).get(name) or describe_file(path) for name, path in paths.items()
    }
    return {"schema": SCHEMA, "files": files, "sha256": _hash_of(files)}


def describe_file(path: Path) -> JsonObject:
    """Return size and hash of a file."""
    return {"size": path.stat().st_size, "sha256": sha256(path)}


def sha256(path: Path) -> str:
    """Hash the content of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(folder: Path) -> JsonObject | None:
    """Read a folder's manifest.json; None where it is missing, unreadable or incomplete."""
    try:
        with open(folder / MANIFEST, "rb") as file:
            content: JsonObject = json.loads(file.read(MAX_MANIFEST_BYTES))
        is_whole = all({"size", "sha256"} <= entry.keys() for entry in content["files"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return content if is_whole else None


def problems(folder: Path) -> list[str]:
    """Check a checkpoint folder against its manifest.

    Returns:
        One line for each problem; [] when every file of the manifest is there with its size and
        hash. Files that the manifest does not name are ignored: people leave notes there.
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
    damage = {
        name: _damage_of(folder, name, entry["size"], entry["sha256"])
        for name, entry in files.items()
    }
    return [f"{name}: {what}" for name, what in damage.items() if what]


def is_visible(folder: Path) -> bool:
    """Return True when this process sees the manifest and every file with its size."""
    content = read_manifest(folder)
    if content is None:
        return False
    with contextlib.suppress(OSError, ValueError):
        return all(
            (folder / name).stat().st_size == entry["size"]
            for name, entry in content["files"].items()
        )
    return False


def _damage_of(folder: Path, name: str, size: int, digest: str) -> str | None:
    """Describe the damage of one file; None for an intact one."""
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


def _hash_of(files: JsonObject) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
