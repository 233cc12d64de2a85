"""Images below a folder, found by the name of an annotation file."""

import os
from pathlib import Path

from visionloop.datasets.io.folders import IMAGE_SUFFIXES
from visionloop.datasets.io.names import FileFinder, path_stem, with_slashes
from visionloop.datasets.io.paths import files_below


class ImageFiles:
    """Images at any depth below a folder, found by the stem of another file.

    Attributes:
        folder: of the images.
        names: paths relative to it, sorted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names = list(files_below(folder, IMAGE_SUFFIXES))
        self._known = frozenset(self.names)
        self._finder = FileFinder(folder)
        self._by_path: dict[str, list[str]] = {}
        self._by_name: dict[str, list[str]] = {}
        for name in self.names:
            self._by_path.setdefault(path_stem(name), []).append(name)
            self._by_name.setdefault(path_stem(os.path.basename(name)), []).append(name)

    def find(self, stem: str) -> list[str]:
        """Return the images of a path without suffix, or else of its last part alone."""
        key = path_stem(f"{stem}.")
        return self._by_path.get(key) or self._by_name.get(os.path.basename(key), [])

    def find_path(self, path: str) -> str | None:
        """Return the image of a path relative to the folder, however it is spelled, or None."""
        inner = os.path.normpath(with_slashes(path))
        found = None if inner.split("/")[0] == ".." else self._finder.find(inner)
        return found if found in self._known else None
