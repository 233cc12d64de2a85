"""Walks through data folders, the names in them that hold no data, and files that are no images."""

import os
import re
import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from visionloop.datasets.io.layout import DataLayoutError, is_hidden

SuffixCounts: TypeAlias = Mapping[str, int]  # {suffix in lower case, "" for none: number of files}

JPEG_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif")
OTHER_SUFFIXES = (".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
IMAGE_SUFFIXES = JPEG_SUFFIXES + OTHER_SUFFIXES
# suffixes of photographs, drawings and scans in formats that are not read
FOREIGN_IMAGES = re.compile(
    r"\.(heic|heif|hif|avif|jxl|jp2|j2k|jpx|jxr|dng|cr2|cr3|nef|arw|orf|rw2|raf|raw|psd|tga|exr|hdr"
    r"|svg|ico|pcx|dcm|pbm|pnm|xcf)"
)
VIDEOS = re.compile(r"\.(mp4|mov|avi|mkv|m4v|webm|mpg|mpeg|wmv)")
ARCHIVES = re.compile(r"\.(zip|tar|gz|tgz|bz2|xz|7z|rar|lmdb|tfrecord|parquet)")
# of files that belong beside images: annotations, notes, code and caches
COMPANIONS = re.compile(
    r"\.(txt|json|jsonl|xml|csv|tsv|ya?ml|md|rst|html?|pdf|xlsx?|py|ipynb|sh|log|cache|db|ini|lock"
    r"|url|license)"
)


def walk_folder(
    folder: str | os.PathLike[str], without: Collection[str] = ()
) -> Iterator[tuple[str, list[str]]]:
    """Yield (path of a folder, names of the files in it, sorted) of a folder and all below it.

    Folders come in the order of their names. Hidden names are left out (see `is_hidden`). Links to
    folders are followed, except for a link to a folder that it lies in.

    Args:
        folder: where to begin.
        without: absolute paths of folders to leave out.

    Raises:
        DataLayoutError: for a folder that cannot be listed.
    """
    yield from _walk(os.fspath(folder), (os.path.realpath(folder),), frozenset(without))


def _walk(
    folder: str, above: tuple[str, ...], without: frozenset[str]
) -> Iterator[tuple[str, list[str]]]:
    """Walk as in `walk_folder`.

    above: the real path of this folder, after those of the links that lead to it.
    """
    try:
        with os.scandir(folder) as entries:
            visible = sorted(
                (entry for entry in entries if not is_hidden(entry.name)),
                key=lambda entry: entry.name,
            )
    except OSError as error:
        raise DataLayoutError(folder, f"cannot be listed ({error.strerror})") from None
    folders = [entry for entry in visible if _is_folder(entry)]
    # a dangling link is kept, to be reported; reading a pipe would wait for ever
    yield (
        folder,
        [
            entry.name
            for entry in visible
            if not _is_folder(entry) and (entry.is_symlink() or entry.is_file())
        ],
    )
    for entry in folders:
        if without and os.path.abspath(entry.path) in without:
            continue
        if not entry.is_symlink():
            here = (*above[:-1], os.path.join(above[-1], entry.name))
        else:
            real = os.path.realpath(entry.path)
            if any(_contains(real, path) for path in above):
                continue
            here = (*above, real)
        yield from _walk(entry.path, here, without)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    """Return whether an entry is a folder or a link to one; a link to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _contains(folder: str, path: str) -> bool:
    """Return whether a real path is a folder or lies below it."""
    return path == folder or path.startswith(os.path.join(folder, ""))


def count_suffixes(names: Iterable[str]) -> Counter[str]:
    """Count files by suffix in lower case."""
    return Counter(os.path.splitext(name)[1].lower() for name in names)


def describe_suffixes(counts: SuffixCounts, most: int = 4) -> str:
    """Return "40 .heic, 2 without suffix", the most frequent first; "" for no file."""
    ordered = _most_frequent(counts)
    parts = [f"{counts[suffix]} {suffix or 'without suffix'}" for suffix in ordered[:most]]
    more = sum(counts[suffix] for suffix in ordered[most:])
    return ", ".join(parts + ([f"{more} others"] if more else []))


def conversion_hint(counts: SuffixCounts, folder: str | os.PathLike[str], target: str) -> str:
    """Return "; DO THIS" for files that hold images in a form that is not read, or "".

    Args:
        counts: of the files, see `count_suffixes`.
        folder: that they lie in, at any depth.
        target: suffix of the format to convert to, with the dot.
    """
    for suffix in _most_frequent(counts):
        if FOREIGN_IMAGES.fullmatch(suffix):
            pattern = shlex.join(["find", os.fspath(folder), "-iname", f"*{suffix}"])
            command = f"{pattern} -exec magick mogrify -format {target[1:]} {{}} +"
            return f"; convert them, for example with ImageMagick: {command}"
        if VIDEOS.fullmatch(suffix):
            return (
                "; take images out of videos, for example with ffmpeg -i VIDEO -vf fps=1 %06d.png"
            )
        if ARCHIVES.fullmatch(suffix):
            return "; extract archives first"
        if not suffix:
            return "; a name needs the suffix of the format"
    return ""


def no_images(
    others: SuffixCounts,
    folder: str | os.PathLike[str],
    supported: Sequence[str],
    target: str = ".jpg",
    where: str = "it",
) -> str:
    """Return the error about a folder without images; arguments as for `passed_over_warning`.

    where: the folder for the message, where it does not begin with its path.
    """
    content = describe_suffixes(others) or "nothing"
    hint = conversion_hint(others, folder, target)
    return f"no images in {where}, it holds {content}; supported are {' '.join(supported)}{hint}"


def passed_over_warning(
    others: SuffixCounts,
    folder: str | os.PathLike[str],
    supported: Sequence[str],
    target: str = ".jpg",
) -> str:
    """Return the warning about files of a folder that are no images; "" without any.

    Annotations, notes and code beside the images are no reason for one.

    Args:
        others: these files, see `count_suffixes`.
        folder: that they lie in, at any depth.
        supported: suffixes of the images.
        target: as for `conversion_hint`.
    """
    counts = {suffix: count for suffix, count in others.items() if not COMPANIONS.fullmatch(suffix)}
    if not counts:
        return ""
    hint = conversion_hint(counts, folder, target)
    return (
        f"files that are passed over: {describe_suffixes(counts)}; "
        f"supported are {' '.join(supported)}{hint}"
    )


def _most_frequent(counts: SuffixCounts) -> list[str]:
    """Return the suffixes, the most frequent first."""
    return sorted(counts, key=lambda suffix: (-counts[suffix], suffix))
