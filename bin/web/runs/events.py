"""Events of a run: the lines of metrics.jsonl and changes of status.json, each line exactly once.

The id of an event is its cursor, see cursor.py.
"""

import json
import os
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from visionloop.bin.reports.metrics_log import as_finite, parse_line
from visionloop.bin.reports.run_folder import read_object, state_of
from visionloop.bin.web.runs.cursor import CHECKED_BYTES, cursor_text, is_cursor_valid, parse_cursor
from visionloop.bin.web.runs.index import Signature, signature_of
from visionloop.engine.types import JsonObject

CHUNK_BYTES = 1 << 20


class Event(NamedTuple):
    """An event. id: cursor after it; data: JSON in one line, ASCII."""

    id: str
    event: str
    data: str


@dataclass
class Tail:
    """The events of a run after a cursor.

    Args:
        run: folder of the run.
        cursor: of the last event that the client has, "0" for all.
    """

    run: Path
    cursor: str = "0"
    _lines: Signature = None
    _status: Signature = None
    _state: str | None = None
    _at_end: bool = False

    def events(self) -> list[Event]:
        """Return the next events, at most one chunk of lines, then a status that has changed."""
        path = self.run / "metrics.jsonl"
        signature = signature_of(path)
        found: list[Event] = []
        if signature != self._lines or not self._at_end:
            found, self.cursor, self._at_end = read_lines(path, self.cursor)
            self._lines = signature
        return [*found, *self._status_events()]

    @property
    def at_end(self) -> bool:
        """True when all whole lines have been returned."""
        return self._at_end

    def _status_events(self) -> Iterator[Event]:
        path = self.run / "status.json"
        signature = signature_of(path)
        if signature != self._status or self._state == "running":
            status = read_object(path)
            state = state_of(status)
            if (signature, state) != (self._status, self._state):
                yield Event(self.cursor, "status", status_text(status, state))
            self._status, self._state = signature, state


def status_text(status: JsonObject, state: str) -> str:
    """Return the data of a `status` event: status.json, with a state that may be "lost"."""
    return json.dumps(status | {"state": state, "time": time.time()})


def read_lines(path: Path, cursor: str) -> tuple[list[Event], str, bool]:
    """Return (events of the whole lines after a cursor, cursor after them, whether these are all).

    A `reset` event comes first where the lines before the cursor are no longer the same; all lines
    follow.
    """
    offset, checksum = parse_cursor(cursor)
    events: list[Event] = []
    try:
        with open(path, "rb") as file:
            if not is_cursor_valid(file.fileno(), offset, checksum):
                offset = 0
                events.append(Event("0", "reset", "{}"))
            start = max(0, offset - CHECKED_BYTES)
            before = os.pread(file.fileno(), offset - start, start)
            content = os.pread(file.fileno(), CHUNK_BYTES, offset)
    except OSError:
        # the run has written nothing yet, or is gone
        return ([Event("0", "reset", "{}")] if offset else []), "0", True
    lines = content[: content.rfind(b"\n") + 1].splitlines(keepends=True)
    if not lines and len(content) == CHUNK_BYTES:
        lines = [content]  # no line of ours, nor is what follows
    after = cursor
    for line in lines:
        offset += len(line)
        before = (before + line)[-CHECKED_BYTES:]
        after = cursor_text(offset, zlib.crc32(before))
        parsed = parse_line(line.decode("utf-8", "replace"))
        if parsed is not None:
            events.append(Event(after, "metrics", json.dumps(as_finite(parsed))))
    return events, after if offset else "0", len(content) < CHUNK_BYTES
