"""Receiver: a file with one JSON object a line, for a log shipper or a program of your own."""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from visionloop.bin.followers.receiver import Cursor, ReceiverError, advance
from visionloop.bin.followers.source import Row, RunState
from visionloop.engine.errors import UserError
from visionloop.engine.types import JsonObject


class JsonlFile:
    """Lines of one run, each with the `run`'s random name and a `kind`.

    Kinds are `settings`, `train` and `eval` (with `step`, `time` and `values`), and `state`. The
    file itself says what is in it; a line that a killed follower has left incomplete is removed.

    Args:
        path: of the file. Raises UserError for a file with lines of another run.
        cursor: memory of this follower.
    """

    def __init__(self, path: Path, cursor: Cursor) -> None:
        self.path, self.label, self._cursor = path, str(path), cursor
        self._has_settings = False
        self._state: object = None

    def connect(self) -> dict[str, int]:
        """Read the file."""
        last: dict[str, int] = {}
        try:
            content = self.path.read_bytes() if self.path.exists() else b""
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                os.truncate(self.path, whole)
        except OSError as error:
            raise self._error(error) from None
        for number, text in enumerate(content[:whole].splitlines(), 1):
            line = self._parse(text, number)
            if line["kind"] == "settings":
                self._has_settings = True
            elif line["kind"] == "state":
                self._state = line
            else:
                advance(last, Row(line["kind"], line["step"], line["time"], line["values"]))
        return last

    def _parse(self, text: bytes, number: int) -> JsonObject:
        try:
            line: JsonObject = json.loads(text)
            if line["run"] == self._cursor.id:
                return line
        except (ValueError, KeyError, TypeError):
            pass
        raise UserError(
            f"{self.path}, line {number}: not a line of this run; give another file, or remove "
            "this one",
            file=str(self.path),
            field="jsonl",
        )

    def send_settings(self, settings: JsonObject) -> None:
        """Write the line of the settings, once."""
        if not self._has_settings:
            self._write([{"kind": "settings", "settings": settings}])
            self._has_settings = True

    def send_rows(self, rows: Sequence[Row]) -> None:
        """Write a line for each row."""
        self._write(asdict(row) for row in rows)

    def send_state(self, state: RunState) -> None:
        """Write the state, where it is not that of the last such line."""
        line = {"run": self._cursor.id, "kind": "state", **asdict(state)}
        if line != self._state:
            self._write([line])
            self._state = line

    def send_folder(self, folder: Path) -> None:
        """Raise UserError: a line holds no weights."""
        raise UserError("--artifacts: --jsonl takes no files", field="artifacts")

    def close(self) -> None:
        """Return: nothing is buffered."""

    def _write(self, lines: Iterable[JsonObject]) -> None:
        """Append lines; a kill or a full disk leaves at most one of them incomplete."""
        text = "".join(json.dumps({"run": self._cursor.id} | line) + "\n" for line in lines)
        try:
            with open(self.path, "ab") as file:
                file.write(text.encode())
        except OSError as error:
            raise self._error(error) from None

    def _error(self, error: OSError) -> ReceiverError:
        return ReceiverError(f"{self.path}: {error.strerror}", file=str(self.path), field="jsonl")
