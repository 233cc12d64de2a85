"""The database of the queue: order, states, names and notes. The files of jobs can rebuild it."""

import contextlib
import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from visionloop.bin.web.jobs.spec import JobKind, JobState
from visionloop.bin.web.launchers.launch import LauncherOptions
from visionloop.engine.errors import UserError
from visionloop.engine.types import JsonObject

SCHEMA = 1
# no database, or not one of ours; other errors, such as a full disk, are no reason to move it aside
DAMAGE = ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_ERROR")
LAUNCHER: TypeAdapter[LauncherOptions] = TypeAdapter(LauncherOptions)
TABLES = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY,
    description TEXT NOT NULL,
    name TEXT NOT NULL,
    note TEXT NOT NULL,
    state TEXT NOT NULL,
    wanted TEXT,
    attempt INTEGER NOT NULL,
    restarts INTEGER NOT NULL,
    position INTEGER NOT NULL,
    created REAL NOT NULL,
    started REAL,
    ended REAL,
    exit_code INTEGER,
    error TEXT
);
CREATE TABLE IF NOT EXISTS runs (
    id TEXT PRIMARY KEY,
    path TEXT NOT NULL,
    name TEXT NOT NULL,
    note TEXT NOT NULL
);
"""
COLUMNS = (
    "id, description, name, note, state, wanted, attempt, restarts, position, created, started, "
    "ended, exit_code, error"
)
CHANGEABLE = (
    "name",
    "note",
    "state",
    "wanted",
    "attempt",
    "restarts",
    "position",
    "started",
    "ended",
    "exit_code",
    "error",
)
log = logging.getLogger("visionloop.studio")


@dataclass(frozen=True)
class JobRow:
    """A job in the database.

    Attributes:
        id: of the job.
        description: content of its job.json.
        name, note: texts of the user.
        state: see JobState.
        wanted: what the user has asked of a job that lives: see queue.py.
        attempt: number of the newest start, 0 before the first.
        restarts: starts that the queue made by itself since the user's last one.
        position: place in the order of all jobs.
        created, started, ended: seconds since 1970, the latter two of the newest attempt.
        exit_code: of the newest attempt, negative for a signal.
        error: {code, message, file, field, hint} of a job that failed.
    """

    id: str
    description: JsonObject
    name: str
    note: str
    state: JobState
    wanted: str | None
    attempt: int
    restarts: int
    position: int
    created: float
    started: float | None
    ended: float | None
    exit_code: int | None
    error: JsonObject | None

    @property
    def kind(self) -> JobKind:
        return JobKind(self.description["kind"])

    @property
    def run(self) -> Path | None:
        return Path(self.description["run"]) if self.description["run"] else None

    @property
    def launcher(self) -> LauncherOptions:
        return LAUNCHER.validate_python(self.description["launcher"])


@dataclass(frozen=True)
class RunNote:
    """Texts of the user for a run."""

    name: str
    note: str


class JobStore:
    """The database, for all threads of one server. path: its file.

    A damaged file is moved aside. Raises UserError for one that cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._lock, self.revision = path, threading.RLock(), 0
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            self._connection = self._open()
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorname", DAMAGE[0]) not in DAMAGE:
                raise UserError(f"{path}: {error}", file=str(path), field="state") from None
            aside = path.with_name(f"{path.name}.damaged-{int(time.time())}")
            log.error("%s: %s; moved to %s and built again from the jobs", path, error, aside.name)
            os.replace(path, aside)
            for suffix in ("-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            self._connection = self._open()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, check_same_thread=False, timeout=30)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, SCHEMA):
                raise sqlite3.DatabaseError(f"schema {version}, expected {SCHEMA}")
            connection.executescript(TABLES)
            connection.execute(f"PRAGMA user_version = {SCHEMA}")
            connection.execute(f"SELECT {COLUMNS} FROM jobs LIMIT 1").fetchall()
            connection.execute("SELECT id, path, name, note FROM runs LIMIT 1").fetchall()
            if connection.execute("PRAGMA quick_check").fetchone()[0] != "ok":
                raise sqlite3.DatabaseError("damaged")
        except BaseException:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._connection:
            yield self._connection
            self.revision += 1

    def jobs(self, states: tuple[JobState, ...] = tuple(JobState)) -> list[JobRow]:
        """Return the jobs in these states in their order."""
        with self._lock:
            condition = f"state IN ({', '.join('?' * len(states))})"
            query = f"SELECT {COLUMNS} FROM jobs WHERE {condition} ORDER BY position, created, id"
            return [_row(values) for values in self._connection.execute(query, states)]

    def job(self, job_id: str) -> JobRow | None:
        """Return a job, None if there is none with this id."""
        with self._lock:
            query = f"SELECT {COLUMNS} FROM jobs WHERE id = ?"
            values = self._connection.execute(query, (job_id,)).fetchone()
        return _row(values) if values else None

    def job_of_run(self, run: Path) -> JobRow | None:
        """Return the newest training job of a run, None without one."""
        rows = [row for row in self.jobs() if row.kind is JobKind.TRAIN and row.run == run]
        return max(rows, key=lambda row: row.created, default=None)

    def insert(self, row: JobRow) -> None:
        """Add a job, unless it is there. Its position is replaced by the last one."""
        with self._transaction() as connection:
            connection.execute(
                f"INSERT OR IGNORE INTO jobs ({COLUMNS}) VALUES "
                "(?, ?, ?, ?, ?, ?, ?, ?, (SELECT COALESCE(MAX(position), 0) + 1 FROM jobs), "
                "?, ?, ?, ?, ?)",
                (
                    row.id,
                    json.dumps(row.description),
                    row.name,
                    row.note,
                    row.state,
                    row.wanted,
                    row.attempt,
                    row.restarts,
                    row.created,
                    row.started,
                    row.ended,
                    row.exit_code,
                    None if row.error is None else json.dumps(row.error),
                ),
            )

    def update(self, job_id: str, *, states: tuple[JobState, ...] = (), **changes: object) -> bool:
        """Change columns of a job in one transaction.

        Args:
            job_id: the job.
            states: change nothing unless the job is in one of these states; (): in any.
            changes: {column: value}.

        Returns:
            False if there is no such job in these states.
        """
        assert set(changes) <= set(CHANGEABLE), changes
        if isinstance(changes.get("error"), dict):
            changes["error"] = json.dumps(changes["error"])
        assignments = ", ".join(f"{name} = ?" for name in changes)
        condition = f" AND state IN ({', '.join('?' * len(states))})" if states else ""
        with self._transaction() as connection:
            done = connection.execute(
                f"UPDATE jobs SET {assignments} WHERE id = ?{condition}",
                (*changes.values(), job_id, *states),
            )
        return done.rowcount > 0

    def begin_attempt(self, job_id: str) -> bool:
        """Make a waiting job STARTING with a new attempt. Returns False if it waits no more."""
        with self._transaction() as connection:
            done = connection.execute(
                "UPDATE jobs SET state = ?, attempt = attempt + 1, wanted = NULL, error = NULL, "
                "exit_code = NULL, started = ?, ended = NULL WHERE id = ? AND state = ?",
                (JobState.STARTING, time.time(), job_id, JobState.QUEUED),
            )
        return done.rowcount > 0

    def order(self, ids: list[str]) -> None:
        """Give all jobs the positions of this list."""
        with self._transaction() as connection:
            rows = [(position, job_id) for position, job_id in enumerate(ids, 1)]
            connection.executemany("UPDATE jobs SET position = ? WHERE id = ?", rows)

    def remove(self, job_id: str) -> None:
        """Remove a job."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM jobs WHERE id = ?", (job_id,))

    def run_notes(self) -> dict[str, RunNote]:
        """Return {id of the run: its texts}."""
        with self._lock:
            rows = self._connection.execute("SELECT id, name, note FROM runs")
            return {run_id: RunNote(name, note) for run_id, name, note in rows}

    def set_run_note(self, run_id: str, path: Path, note: RunNote) -> None:
        """Keep the texts of a run."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO runs (id, path, name, note) VALUES (?, ?, ?, ?)",
                (run_id, str(path), note.name, note.note),
            )


def _row(values: tuple[object, ...]) -> JobRow:
    fields = dict(zip(COLUMNS.split(", "), values, strict=True))
    fields["description"] = json.loads(str(fields["description"]))
    fields["state"] = JobState(str(fields["state"]))
    fields["error"] = json.loads(str(fields["error"])) if fields["error"] else None
    return JobRow(**fields)  # type: ignore[arg-type]  # the columns are those of TABLES
