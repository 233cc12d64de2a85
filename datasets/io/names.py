"""Matching of file names that are written otherwise than the file is called.

A name in an annotation file may have been written on Windows, with backslashes and in any case, or
on another file system: a Mac decomposes "é" into "e" and an accent, and a zip keeps that.
"""

import os
import unicodedata
from collections.abc import Iterable
from urllib.parse import unquote


def composed(name: str) -> str:
    """Return a name in the normal form NFC; two spellings of one name become equal."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def class_name(text: str) -> str:
    """Return the name of a class as one line of text in normal form, without space around it."""
    return composed(one_line(text).strip())


def one_line(text: str) -> str:
    """Return a text that can be drawn and printed in one line.

    Line breaks, tabs and other control characters become spaces, what stands for bytes that are no
    UTF-8 becomes the replacement character.
    """
    if text.isprintable():
        return text
    replacement = {"Cc": " ", "Zl": " ", "Zp": " ", "Cs": "\ufffd"}
    return "".join(replacement.get(unicodedata.category(letter), letter) for letter in text)


def is_unicode(name: str) -> bool:
    """Return whether a name from the file system is valid Unicode, which logs and JSON need."""
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes that are not UTF-8 are escaped as surrogates
        return False
    return True


def with_slashes(path: str) -> str:
    r"""Return a path with `/` for each `\` of Windows."""
    return path.replace("\\", "/")


def path_stem(path: str) -> str:
    """Return a path without its suffix, in normal form: the key that pairs files of two folders."""
    return composed(os.path.splitext(path)[0])


class FileFinder:
    """Finder of the files below a folder by paths as an annotation file writes them.

    Folders are listed once each, which is cheaper than one call for each file.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Make a finder. folder: that all paths are relative to."""
        self.folder = os.fspath(folder)
        self._names: dict[str, frozenset[str]] = {}
        self._spellings: dict[str, dict[str, list[str]]] = {}

    def find(self, path: str) -> str | None:
        """Return the path of a file or folder as it is on disk, None without one.

        An equal path comes first. Otherwise backslashes separate folders, and a name may differ in
        its Unicode form or, where only one name is left, in its case. Label Studio writes names
        as in a URL, with %20 for a space.
        """
        level, name = os.path.split(path)
        if name in self.names(level):
            return path
        found, decoded = self._find_similar(path), unquote(path)
        if found is None and decoded != path and os.pardir not in with_slashes(decoded).split("/"):
            found = self._find_similar(decoded)
        return found

    def _find_similar(self, path: str) -> str | None:
        """Return the path of a file whose names differ in their spelling alone."""
        found = ""
        for part in os.path.normpath(with_slashes(path)).split("/"):
            match = self._match(found, part)
            if match is None:
                return None
            found = os.path.join(found, match)
        return found

    def names(self, level: str) -> frozenset[str]:
        """Return the names in a folder, which is relative to `folder`; none without the folder."""
        if level not in self._names:
            try:
                self._names[level] = frozenset(os.listdir(os.path.join(self.folder, level)))
            except (OSError, ValueError):
                self._names[level] = frozenset()
        return self._names[level]

    def _match(self, level: str, name: str) -> str | None:
        """Return the name in a folder that differs from `name` in its spelling alone."""
        names = self.names(level)
        if name in names or name in (os.curdir, os.pardir):
            return name
        if level not in self._spellings:
            self._spellings[level] = _by_spelling(names)
        similar = self._spellings[level].get(composed(name).casefold(), [])
        same_case = [other for other in similar if composed(other) == composed(name)]
        candidates = same_case or similar
        return candidates[0] if len(candidates) == 1 else None


def _by_spelling(names: Iterable[str]) -> dict[str, list[str]]:
    """Return {normal form without case: names}."""
    spellings: dict[str, list[str]] = {}
    for name in names:
        spellings.setdefault(composed(name).casefold(), []).append(name)
    return spellings
