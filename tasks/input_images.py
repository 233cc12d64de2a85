"""The images of an `--input`: one file, or all images below a folder."""

import hashlib
import os
from collections.abc import Collection, Sequence
from pathlib import Path

from visionloop.datasets.io.images import IMAGE_SUFFIXES
from visionloop.engine.errors import UserError


def find_images(input_path: str | Path, *, without: Collection[str] = ()) -> tuple[Path, list[str]]:
    """List the images of a file or folder, at any depth.

    Args:
        input_path: an image file, or a folder.
        without: absolute paths of folders to skip, since predictions may be written among the
            images.

    Returns:
        (root folder, names relative to it, sorted). Hidden files and folders are skipped.

    Raises:
        UserError: no such file or folder, or no image in it.
    """
    path = Path(input_path)
    if path.is_file():
        return path.parent, [path.name]
    if not path.is_dir():
        raise UserError(f"--input {path}: no such file or folder", field="input", file=str(path))
    names = []
    for parent, folders, files in os.walk(path):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".")
            and os.path.abspath(os.path.join(parent, name)) not in without
        ]
        images = [
            name
            for name in files
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
        ]
        names += [os.path.relpath(os.path.join(parent, name), path) for name in images]
    if not names:
        raise UserError(
            f"--input {path}: no images in it ({' '.join(IMAGE_SUFFIXES)})",
            field="input",
            file=str(path),
        )
    return path, sorted(names)


def fingerprint(root: str | Path, names: Sequence[str]) -> str:
    """Hash the names and sizes of files below `root`; a copy of the folder has the same hash."""
    digest = hashlib.sha256()
    for name in names:
        try:
            size: int | None = os.stat(os.path.join(root, name)).st_size
        except OSError:  # a broken link: reported when it is read
            size = None
        digest.update(f"{name}\0{size}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()
