"""Content of run folders, kept between requests: of a file that grows, only the new lines are read.

The parts of a report that are drawn of a run are kept too, until one of its files changes.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

from visionloop.bin.reports.contents import describe_run
from visionloop.bin.reports.metrics_log import MetricsLog
from visionloop.bin.reports.records import media_type_of
from visionloop.bin.reports.run_folder import RunFolder, read_files, read_object, state_of
from visionloop.bin.web.config import API
from visionloop.bin.web.runs.cursor import checksum_before, cursor_text
from visionloop.bin.web.runs.index import IndexedRun, Signature, signature_of
from visionloop.bin.web.runs.records import step_of
from visionloop.engine.types import JsonObject

MOST_LOG_BYTES = 512 << 20  # of the metrics.jsonl that are kept, whose columns take about half
MOST_RECORD_BYTES = 32 << 20
# beside metrics.jsonl, what a part of a report is made of
DESCRIBED = ("status.json", "branch.json", "settings.json", "environment.json", "evaluations")


@dataclass
class GrowingLog:
    """A metrics.jsonl and how far it has been read. checksum: of the bytes before `offset`."""

    log: MetricsLog = field(default_factory=MetricsLog)
    offset: int = 0
    checksum: int = 0
    signature: Signature = None

    def update(self, path: Path) -> None:
        """Read the whole lines that are new; all of them where the file was cut."""
        signature = signature_of(path)
        if signature == self.signature:
            return
        self.signature = signature
        try:
            with open(path, "rb") as file:
                if checksum_before(file.fileno(), self.offset) != self.checksum:
                    self.log, self.offset = MetricsLog(), 0
                file.seek(self.offset)
                content = file.read()
                whole = content[: content.rfind(b"\n") + 1]
                if whole:
                    self.log.feed(whole)
                    self.offset += len(whole)
                self.checksum = checksum_before(file.fileno(), self.offset)
        except OSError:
            self.log, self.offset, self.checksum, self.signature = MetricsLog(), 0, 0, None


@dataclass
class _Kept:
    log: GrowingLog = field(default_factory=GrowingLog)
    lock: threading.Lock = field(default_factory=threading.Lock)
    key: object = None
    part: JsonObject = field(default_factory=dict)


class RunReader:
    """Reader of runs that keeps what it has read."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._lock = threading.Lock()
        self._records = RecordCache()

    def folder(self, run: IndexedRun) -> tuple[RunFolder, str]:
        """Return the content of a run and the cursor of its events after the last line."""
        kept = self._keep(run)
        with kept.lock:
            return self._read(run, kept)

    def part(self, run: IndexedRun) -> tuple[RunFolder, JsonObject, str]:
        """Return (content, part of the report, cursor of its events after the last line)."""
        kept = self._keep(run)
        with kept.lock:
            folder, cursor = self._read(run, kept)
            key = (
                kept.log.signature,
                *(signature_of(f"{run.path}/{name}") for name in DESCRIBED),
                state_of(folder.status),
            )
            if key != kept.key:
                kept.part = describe_run(
                    folder, run.name, image_of=ImageAddress(run.id), read=self._records.read
                )
                kept.key = key
            return folder, kept.part, cursor

    def _keep(self, run: IndexedRun) -> _Kept:
        with self._lock:
            kept = self._kept.setdefault(run.id, _Kept())
            self._kept.move_to_end(run.id)
            total = sum(other.log.offset for other in self._kept.values())
            while total > MOST_LOG_BYTES and len(self._kept) > 1:
                total -= self._kept.popitem(last=False)[1].log.offset
            return kept

    def _read(self, run: IndexedRun, kept: _Kept) -> tuple[RunFolder, str]:
        kept.log.update(run.path / "metrics.jsonl")
        folder = read_files(run.path, kept.log.log)
        return folder, cursor_text(kept.log.offset, kept.log.checksum)


@dataclass(frozen=True)
class ImageAddress:
    """Addresses of the images of a run, for `describe_run`."""

    id: str

    def __call__(self, folder: Path, name: object, notes: list[str]) -> str | None:
        """Return the address of an image in the folder of an evaluation, None without one."""
        if name is None:
            return None
        step = step_of(folder.name)
        if step is None or media_type_of(folder, str(name)) is None:
            notes.append(f"evaluations/{folder.name}/{name}: not an image of a record")
            return None
        return f"{API}/runs/{self.id}/evaluations/{step}/images/{name}"


class RecordCache:
    """Records of evaluations, which never change once they are written."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[Signature, JsonObject, list[str]]] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, path: Path, notes: list[str]) -> JsonObject:
        """Read a record, see `read_object`."""
        name, signature = str(path), signature_of(path)
        with self._lock:
            kept = self._kept.get(name)
        if kept is None or kept[0] != signature:
            problems: list[str] = []
            kept = signature, read_object(path, problems), problems
        with self._lock:
            self._kept[name] = kept
            self._kept.move_to_end(name)
            total = sum(one[0][1] for one in self._kept.values() if one[0])
            while total > MOST_RECORD_BYTES and len(self._kept) > 1:
                _, (removed, _, _) = self._kept.popitem(last=False)
                total -= removed[1] if removed else 0
        notes += kept[2]
        return kept[1]
