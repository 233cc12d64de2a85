"""The images of an `--input`: a file, or all in a folder."""

import hashlib
import os
from pathlib import Path

from visionloop.datasets.io.images import IMAGE_SUFFIXES
from visionloop.engine.errors import UserError


def find_images(input_path, *, without=()):
    """(root folder, names relative to it, sorted). Raises UserError when there is no image.

    without: absolute paths of folders that are passed over: answers may lie among the images.
    """
    path = Path(input_path)
    if path.is_file():
        return path.parent, [path.name]
    if not path.is_dir():
        raise UserError(f"--input {path}: no such file or folder", field="input", file=str(path))
    names = []
    for where, folders, files in os.walk(path):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".")
            and os.path.abspath(os.path.join(where, name)) not in without
        ]
        images = [
            name
            for name in files
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
        ]
        names += [os.path.relpath(os.path.join(where, name), path) for name in images]
    if not names:
        raise UserError(
            f"--input {path}: no images in it ({' '.join(IMAGE_SUFFIXES)})",
            field="input",
            file=str(path),
        )
    return path, sorted(names)


def fingerprint(root, names):
    """Changes with the names and sizes of the files; a copy of the folder has the same."""
    digest = hashlib.sha256()
    for name in names:
        try:
            size = os.stat(os.path.join(root, name)).st_size
        except OSError:  # a link to nothing: told when it is read
            size = None
        digest.update(f"{name}\0{size}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()
