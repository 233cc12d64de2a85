"""Receivers of a follower, and its memory between two starts."""

import fcntl
import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from visionloop.bin.followers.source import Row, RunState
from visionloop.engine.checkpoints.files import replace_file
from visionloop.engine.errors import UserError
from visionloop.engine.types import JsonObject


class ReceiverError(UserError):
    """A receiver that does not take what it is sent. It may later: nothing is lost."""


def receiver_error(option: str, error: Exception) -> ReceiverError:
    """Return an error of a receiver's package or of the connection as its first line."""
    first_line = next(iter(str(error).splitlines()), type(error).__name__)
    return ReceiverError(f"--{option}: {first_line}", field=option)


class Receiver(Protocol):
    """Destination of one run. All methods raise ReceiverError."""

    label: str  # of the destination, for messages

    def connect(self) -> dict[str, int]:
        """Find or make the run there. Return {key: last step} of the points that it has.

        Called again after an error: a batch may have arrived although the response was lost.
        """

    def send_settings(self, settings: JsonObject) -> None:
        """Send {name: value}. Settings that the receiver has stay as they are."""

    def send_rows(self, rows: Sequence[Row]) -> None:
        """Send new rows, in the order of the file."""

    def send_state(self, state: RunState) -> None:
        """Send the state, where it differs from the last one."""

    def send_folder(self, folder: Path) -> None:
        """Upload the folder of the best weights."""

    def close(self) -> None:
        """Send what is buffered."""


class Cursor:
    """Memory of a follower in a file of its own, and the lock that keeps a second one out.

    Args:
        folder: of the file; made if it is not there.
        kind: of the receiver.
        target: of the receiver, such as a URI; a run may have followers with different ones.
    """

    def __init__(self, folder: Path, kind: str, target: str) -> None:
        name = f"{kind}-{hashlib.sha256(target.encode()).hexdigest()[:12]}"
        self.path = folder / f"{name}.json"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = open(folder / f"{name}.lock", "w")  # noqa: SIM115 - held until the end
        except OSError as error:
            raise UserError(
                f"{folder}: {error.strerror}; give --state FOLDER to keep the follower's notes "
                "elsewhere",
                file=str(folder),
                field="state",
            ) from None
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"{self.path}: another follower forwards this run to the same place",
                code="locked",
                file=str(self.path),
            ) from None
        self.content: JsonObject = {"schema": 1, "id": uuid.uuid4().hex}
        if self.path.exists():
            self.content = self._read()
        else:
            self.update()  # before the receiver hears of the id

    def _read(self) -> JsonObject:
        try:
            content: JsonObject = json.loads(self.path.read_text(encoding="utf-8"))
            if content["schema"] == 1 and isinstance(content["id"], str):
                return content
        except (ValueError, KeyError, TypeError):
            pass
        raise UserError(
            f"{self.path}: not the notes of a follower; remove the file to forward all again, as "
            "another run",
            file=str(self.path),
        )

    @property
    def id(self) -> str:
        """Random name of the run at its receiver, which a copy or a new run does not share."""
        return str(self.content["id"])

    def update(self, **changes: object) -> None:
        """Change fields and write the file."""
        self.content |= changes
        replace_file(self.path, json.dumps(self.content) + "\n", durable=True)


def advance(last: dict[str, int], row: Row) -> None:
    """Note in {key: last step} that the receiver has a row."""
    last.update(dict.fromkeys(row.values, row.step))


def new_values(last: Mapping[str, int], row: Row) -> Row | None:
    """Return the row without the points that the receiver has, None if it has all."""
    values = {key: value for key, value in row.values.items() if row.step > last.get(key, -1)}
    return Row(row.kind, row.step, row.time, values) if values else None
