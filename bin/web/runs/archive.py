"""The best weights of a run: a list of files with their hashes, and a zip that is made on the way.

The files are stored, not compressed: weights do not shrink, and the network is the slower part.
"""

import hashlib
import os
import re
import threading
import time
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from visionloop.bin.web.problems import Problem
from visionloop.bin.web.runs.index import Signature, signature_of
from visionloop.bin.web.runs.records import open_regular

BEST, SUMS = "best", "SHA256SUMS"
CHUNK_BYTES = 1 << 20
MOST_FILES, MOST_HASHES = 1000, 4096
MOST_CARD_BYTES = 64 << 10
PLAIN_ZIP_BYTES = (1 << 31) - (1 << 20)  # of all files; above, a zip has more headers
NOT_PRINTABLE = re.compile(r"[^ -~\u00a0-\U0010ffff]|\ufffd")


@dataclass(frozen=True)
class WeightFile:
    """A file of best/. name: below it, with slashes."""

    name: str
    path: Path
    size: int
    changed: float


class Hashes:
    """SHA-256 of files, computed once while they do not change."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Path, tuple[Signature, str]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, path: Path) -> str:
        """Return the hash of a file. Raises OSError."""
        signature = signature_of(path)
        with self._lock:
            known = self._kept.get(path)
        if known is not None and known[0] == signature:
            return known[1]
        with open_regular(path) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        with self._lock:
            self._kept[path] = signature, digest
            while len(self._kept) > MOST_HASHES:
                self._kept.popitem(last=False)
        return digest


def best_files(run: Path) -> list[WeightFile]:
    """Return the files of best/, without links. Raises Problem (404) before the first one."""
    top = run / BEST
    files = [] if top.is_symlink() else sorted(walk(top, ""), key=lambda file: file.name)
    if not files:
        raise Problem(
            404,
            "no_best",
            f"{run.name!a}: no best weights yet",
            hint="the first evaluation writes them, --eval-every says when",
        )
    return files[:MOST_FILES]


def walk(folder: Path, prefix: str) -> Iterator[WeightFile]:
    """Yield the regular files below a folder whose names any system can write."""
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith(".") or NOT_PRINTABLE.search(entry.name):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from walk(Path(entry.path), f"{prefix}{entry.name}/")
        elif entry.is_file(follow_symlinks=False):
            stat = entry.stat(follow_symlinks=False)
            yield WeightFile(f"{prefix}{entry.name}", Path(entry.path), stat.st_size, stat.st_mtime)


def model_card(run: Path) -> str | None:
    """Return the text of the model card, None without one."""
    path = run / BEST / "README.md"
    try:
        with open_regular(path) as file:
            return file.read(MOST_CARD_BYTES).decode("utf-8", "replace")
    except OSError:
        return None


def zip_name(run: Path) -> str:
    """Return a file name for the zip, ASCII."""
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '_', run.name).strip('._-')[:80] or 'run'}-best.zip"


class _Sink:
    """File that a zip is written to and taken from; it cannot be sought in."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, content: bytes) -> int:
        self._parts.append(bytes(content))
        return len(content)

    def flush(self) -> None:
        """Do nothing: the content is taken after each write."""

    def take(self) -> bytes:
        content = b"".join(self._parts)
        self._parts.clear()
        return content


def zip_parts(files: list[WeightFile]) -> Iterator[bytes]:
    """Yield a zip with the files and their SHA256SUMS, below best/.

    Raises OSError when a file changes in between: the download breaks off.
    """
    sink = _Sink()
    sums = []
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload]
        for file in files:
            digest, left = hashlib.sha256(), file.size
            info = zip_info(file.name, file.changed, file.size)
            with open_regular(file.path) as source, archive.open(info, "w") as target:
                while content := source.read(min(CHUNK_BYTES, left + 1)):
                    left -= len(content)
                    digest.update(content)
                    target.write(content)
                    yield sink.take()
            if left != 0:
                raise OSError(f"{file.name}: was replaced during the download")
            sums.append((digest.hexdigest(), file.name))
        content = sums_text(sums)
        info = zip_info(SUMS, max(file.changed for file in files), len(content))
        with archive.open(info, "w") as target:
            target.write(content)
    yield sink.take()


def zip_info(name: str, changed: float, size: int) -> zipfile.ZipInfo:
    """Return the header of a file."""
    date = time.localtime(max(changed, 315_662_400.0))[:6]  # a zip has no years before 1980
    info = zipfile.ZipInfo(f"{BEST}/{name}", date)
    info.file_size = size  # the header of a large file has another form
    info.external_attr = 0o644 << 16
    return info


def zip_size(files: list[WeightFile]) -> int | None:
    """Return the length of the zip in bytes, None for one of 2 GiB and more."""
    sums = len(sums_text([("0" * 64, file.name) for file in files]))
    rows = [(file.name, file.size) for file in files] + [(SUMS, sums)]
    # of each file a header of 30, a descriptor of 16 and an entry of 46 bytes; 22 at the end
    names = sum(len(f"{BEST}/{name}".encode()) for name, _ in rows)
    size = sum(size for _, size in rows) + 2 * names + len(rows) * (30 + 16 + 46) + 22
    return size if size < PLAIN_ZIP_BYTES else None


def sums_text(sums: list[tuple[str, str]]) -> bytes:
    """Return the content of SHA256SUMS, for `sha256sum --check` in the folder."""
    return "".join(f"{digest}  {name}\n" for digest, name in sums).encode()
