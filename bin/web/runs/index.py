"""Index of the runs below the roots: found by a walk, kept up to date by the times of two files."""

import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from visionloop.bin.reports.branches import read_branch
from visionloop.bin.reports.listing import find_runs
from visionloop.bin.reports.run_folder import as_object, read_object, state_of
from visionloop.bin.web.problems import Problem
from visionloop.bin.web.runs.identity import run_id
from visionloop.bin.web.runs.text import float_or_none, text_of
from visionloop.engine.types import JsonObject

TICK_SECONDS = 1.5  # between looks at the files of known runs
WALK_SECONDS = 10.0  # between walks for new ones
FIRST_SCAN_SECONDS = 10.0  # longest wait of a request for the first walk
MOST_FOLDERS = 20_000  # of one root: a folder of data given as a root must not take minutes
FIRST_LINE_BYTES = 4096
WATCHED = ("status.json", "settings.json", "metrics.jsonl")

log = logging.getLogger("visionloop.studio")

# time of the last change, size and inode of a file; None without the file
Signature = tuple[int, int, int] | None


@dataclass(frozen=True)
class IndexedRun:
    """A run folder, as its two small files describe it.

    Attributes:
        id: see `run_id`.
        path: of the folder, with links resolved.
        name: path below its root.
        settings: {name: {"value", "source"}}.
        status: content of status.json, {} without one.
        branch: see `read_branch`.
        started: seconds since 1970 of the first start, None if unknown.
        active: seconds since 1970 of the last heartbeat, or of the last change of a file.
        signatures: of the files that this was read from.
    """

    id: str
    path: Path
    name: str
    settings: JsonObject
    status: JsonObject
    branch: JsonObject | None
    started: float | None
    active: float
    signatures: tuple[Signature, ...]

    def value(self, name: str) -> object:
        """Return the value of a setting, None for an unknown one."""
        return as_object(self.settings.get(name)).get("value")


class RunIndex:
    """The runs below the roots, those started elsewhere included.

    Links are not followed: a run is found where it is, or through a root that is a link.

    Args:
        roots: folders to walk, with links resolved; they need not exist.

    Attributes:
        revision: number that grows when a run has changed.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = tuple(roots)
        self.revision = 0
        self._runs: dict[str, IndexedRun] = {}
        self._states: dict[str, str] = {}
        self._places: dict[str, tuple[str, str]] = {}  # {path: (id, name)}
        self._scanning = threading.Lock()
        self._wake, self._closed, self._scanned = (threading.Event() for _ in range(3))
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread that looks for changes."""
        self._thread = threading.Thread(target=self._watch, name="runs", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def runs(self) -> list[IndexedRun]:
        """Return all runs: those that run first, then by their last activity."""
        self._scanned.wait(FIRST_SCAN_SECONDS)
        now = time.time()
        return sorted(self._runs.values(), key=lambda run: order_of(run, now))

    def run(self, id: str) -> IndexedRun:
        """Return a run. Raises Problem (404) for an unknown id."""
        self._scanned.wait(FIRST_SCAN_SECONDS)
        found = self._runs.get(id)
        if found is None:
            self.scan()  # a run that has begun since the last walk
            found = self._runs.get(id)
        if found is None:
            hint = "GET /api/v1/runs lists the runs below the roots"
            raise Problem(404, "no_run", f"{id}: no such run", field="id", hint=hint)
        return found

    def path_of(self, id: str) -> Path:
        """Return the folder of a run. Raises Problem (404) for an unknown id."""
        return self.run(id).path

    def on_cpu(self) -> list[Path]:
        """Return the folders of the runs that train on the CPU, by their own files."""
        return [
            run.path
            for run in self._runs.values()
            if run.status.get("state") == "running" and run.value("device") == "cpu"
        ]

    def scan_soon(self) -> None:
        """Walk the roots now, in the thread: a run has been started or removed."""
        self._wake.set()

    def _watch(self) -> None:
        walked, roots = 0.0, self._root_times()
        while not self._closed.is_set():
            is_due = time.monotonic() - walked > WALK_SECONDS or self._wake.is_set()
            is_due, roots = is_due or roots != self._root_times(), self._root_times()
            self._wake.clear()
            if is_due:
                walked = time.monotonic()
            try:
                self.scan(walk=is_due)
            except Exception:  # whatever is in a run folder, the others are followed
                log.exception("cannot read the runs; trying again")
            self._wake.wait(TICK_SECONDS)

    def _root_times(self) -> list[Signature]:
        return [signature_of(root) for root in self.roots]

    def scan(self, *, walk: bool = True) -> None:
        """Read the files that have changed. walk: look for new runs too."""
        with self._scanning:
            if walk:
                # of roots inside one another, the first one gives the name
                self._places = dict(reversed(list(self._find())))
            found: dict[str, IndexedRun] = {}
            for path, (id, name) in self._places.items():
                signatures = tuple(signature_of(f"{path}/{file}") for file in WATCHED)
                if not any(signatures):
                    continue  # removed
                known = self._runs.get(id)
                # a line of metrics.jsonl alone changes nothing where there is a status.json
                seen = signatures[:2] if signatures[0] else signatures
                if known is None or known.signatures != seen:
                    known = read_indexed(id, Path(path), name, seen, known)
                found[id] = known
            now = time.time()
            states = {id: state_of(run.status, now) for id, run in found.items()}
            # a run is lost when nothing changes
            is_changed = states != self._states or found != self._runs
            self._runs, self._states = found, states
            self.revision += is_changed
            self._scanned.set()

    def _find(self) -> Iterator[tuple[str, tuple[str, str]]]:
        for root in self.roots:
            for path in find_runs(root, most_folders=MOST_FOLDERS):
                known = self._places.get(str(path))
                name = root.name if path == root else path.relative_to(root).as_posix()
                yield str(path), known or (run_id(path), text_of(name))


def order_of(run: IndexedRun, now: float) -> tuple[bool, float, str]:
    """Return the place of a run in a list: two that run do not change places at each heartbeat."""
    is_running = state_of(run.status, now) == "running"
    return not is_running, -(run.started or 0.0 if is_running else run.active), run.name


def signature_of(path: str | Path) -> Signature:
    """Return what changes with a file, None without it."""
    try:
        stat = os.stat(path)
    except (OSError, ValueError):
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def read_indexed(
    id: str, path: Path, name: str, signatures: tuple[Signature, ...], known: IndexedRun | None
) -> IndexedRun:
    """Read the files of a run.

    known: the run as it was read before; settings.json is not read again while it is the same.
    """
    settings, status = known.settings if known else {}, read_object(path / "status.json")
    started = known.started if known else None
    if known is None or known.signatures[1] != signatures[1]:
        settings = as_object(read_object(path / "settings.json").get("settings"))
        started = None
    times = [signature[0] / 1e9 for signature in signatures if signature]
    heartbeat = float_or_none(status.get("heartbeat"))
    return IndexedRun(
        id=id,
        path=path,
        name=name,
        settings=settings,
        status=status,
        branch=read_branch(path),
        started=started or started_of(path, signatures[1]),
        active=times[0] if heartbeat is None else heartbeat,
        signatures=signatures,
    )


def started_of(path: Path, settings: Signature) -> float | None:
    """Return the first start of a run: its first line, or its settings where they are older.

    Each start writes the settings again, and the lines stay.
    """
    times = [settings[0] / 1e9] if settings else []
    try:
        with open(path / "metrics.jsonl", "rb") as file:
            line = json.loads(file.readline(FIRST_LINE_BYTES))
    except (OSError, ValueError, RecursionError):
        line = {}
    first = float_or_none(as_object(line).get("time"))
    return min([*times, first] if first is not None else times, default=None)
