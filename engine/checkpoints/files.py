"""Checkpoint folders: safetensors and json, hashed, renamed when whole. A crash at any moment leaves the older ones valid."""

import json
import math
import os


def fsync(path):
    """Force a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path, content):
    """Keys sorted, so that equal content is equal bytes."""
    path.write_text(json.dumps(finite(content), indent=1, sort_keys=True) + "\n")


def finite(value):
    """The same with null for inf and nan, which json does not have."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def replace_file(path, text):
    """Write a small file so that readers see the old or the new one, never half."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
