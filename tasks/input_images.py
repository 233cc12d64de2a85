"""The images of an `--input`: one file, or all images below a folder."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from visionloop.datasets.io.folders import (
    IMAGE_SUFFIXES,
    count_suffixes,
    no_images,
    passed_over_warning,
    walk_folder,
)
from visionloop.engine.errors import UserError
from visionloop.tasks.splits import layout_errors


def find_images(
    input_path: str | Path,
    *,
    without: Collection[str] = (),
    warn: Callable[[str], object] | None = None,
) -> tuple[Path, list[str]]:
    """List the images of a file or folder, at any depth, see `walk_folder`.

    Args:
        input_path: an image file, or a folder.
        without: absolute paths of folders to skip, since predictions may be written among the
            images.
        warn: called with a line about files that are no images, if there are any.

    Returns:
        (root folder, names relative to it, sorted).

    Raises:
        UserError: no such file or folder, or no image in it.
    """
    path = Path(input_path)
    if path.is_file():
        return path.parent, [path.name]
    if not path.is_dir():
        raise UserError(f"--input {path}: no such file or folder", field="input", file=str(path))
    names, others = [], Counter[str]()
    with layout_errors("input"):
        for parent, files in walk_folder(path, without):
            images = [name for name in files if name.lower().endswith(IMAGE_SUFFIXES)]
            names += [os.path.relpath(os.path.join(parent, name), path) for name in images]
            others += count_suffixes(set(files).difference(images))
    if not names:
        raise UserError(
            f"--input {path}: {no_images(others, path, IMAGE_SUFFIXES)}",
            field="input",
            file=str(path),
        )
    warning = passed_over_warning(others, path, IMAGE_SUFFIXES)
    if warn and warning:
        warn(f"--input {path}: {warning}")
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
