"""Source of a follower: settings, new rows of metrics.jsonl and state of a run folder."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from visionloop.bin.reports.metrics_log import NOT_CURVES, parse_line
from visionloop.bin.reports.run_folder import (
    as_object,
    best_of,
    is_number,
    read_object,
    read_run,
    state_of,
)
from visionloop.engine.types import JsonObject

ENDED = ("finished", "stopped", "failed", "lost")
NO_KEY = re.compile(r"[^\w/. -]")  # MLflow takes no other characters in the name of a metric


@dataclass(frozen=True)
class Row:
    """The numbers of one line of metrics.jsonl.

    Attributes:
        kind: "train" or "eval".
        step: optimizer steps done.
        time: seconds since 1970.
        values: {key: value}, keys as TensorBoard's tags: "train/loss", "eval/mAP".
    """

    kind: str
    step: int
    time: float
    values: Mapping[str, float]


@dataclass(frozen=True)
class RunState:
    """State of a run, see `state_of`, its best evaluation and the message of its error."""

    state: str
    best: JsonObject | None
    error: str | None


class RunSource:
    """A run folder that is read again and again. Raises UserError for any other folder."""

    def __init__(self, path: str) -> None:
        run = read_run(path)
        self.folder, self.name = run.path, run.path.name
        self._file: BinaryIO | None = None

    def settings(self) -> JsonObject:
        """Return {name: value}; {} while there is no settings.json."""
        settings = as_object(read_object(self.folder / "settings.json").get("settings"))
        return {name: as_object(row).get("value") for name, row in settings.items()}

    def state(self) -> RunState:
        """Return the state of the run."""
        status = read_object(self.folder / "status.json")
        message = as_object(status.get("error")).get("message")
        return RunState(
            state=state_of(status),
            best=best_of(status),
            error=None if message is None else str(message),
        )

    def started(self) -> float | None:
        """Return the time of the first line of metrics.jsonl in seconds since 1970."""
        with suppress(OSError), open(self.folder / "metrics.jsonl", encoding="utf-8") as file:
            time = (parse_line(file.readline()) or {}).get("time")
            return float(time) if is_number(time) else None
        return None

    def rewind(self) -> None:
        """Let `new_rows` begin with the first line again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def new_rows(self) -> Iterator[Row]:
        """Yield the rows of the lines that are complete since the last call.

        A resumed run replaces the file by one without the lines that it repeats: the new file is
        read from its start, and rows come twice.
        """
        path = self.folder / "metrics.jsonl"
        with suppress(FileNotFoundError):
            if self._file is None or self._is_replaced(path, self._file):
                self.rewind()
                self._file = open(path, "rb")  # noqa: SIM115 - see _is_replaced
        if self._file is None:
            return
        while True:
            start = self._file.tell()
            line = self._file.readline()
            if not line.endswith(b"\n"):
                self._file.seek(start)  # being written
                return
            row = row_of(parse_line(line.decode(errors="replace")) or {})
            if row is not None:
                yield row

    @staticmethod
    def _is_replaced(path: Path, file: BinaryIO) -> bool:
        """Return whether a path is another file than the open one, or was cut.

        The file stays open between the polls: its inode number is not given to another one.
        """
        now, then = path.stat(), os.fstat(file.fileno())
        return (now.st_dev, now.st_ino) != (then.st_dev, then.st_ino) or now.st_size < file.tell()


def row_of(line: JsonObject) -> Row | None:
    """Return the numbers of a line, None for a line without any.

    nan and infinity, null in the file, are left out.
    """
    kind = line.get("kind")
    if kind == "train":
        groups = {"train": {name: line[name] for name in line.keys() - NOT_CURVES}}
    elif kind == "eval":
        losses = {"train_loss": line.get("train_loss"), "val_loss": line.get("val_loss")}
        groups = {
            "eval": losses | as_object(line.get("metrics")),
            "eval_raw": as_object(line.get("metrics_raw")),
        }
    else:
        return None
    values = {
        NO_KEY.sub("_", f"{group}/{name}"): float(value)
        for group, items in groups.items()
        for name, value in sorted(items.items())
        if is_number(value)
    }
    time = line.get("time")
    if not values or not is_number(time):
        return None
    return Row(kind=kind, step=line["step"], time=float(time), values=values)
