"""Reader of a run folder.

Parts that are missing or unreadable become notes: a report is most useful for a run that failed.
"""

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeGuard

from visionloop.bin.reports.metrics_log import MetricsLog
from visionloop.engine.checkpoints.files import finite
from visionloop.engine.errors import UserError
from visionloop.engine.types import JsonObject

RUN_FILES = ("settings.json", "status.json", "metrics.jsonl")  # any of them marks a run folder
MAX_SILENCE = 60  # seconds; without a heartbeat for longer the process is gone
LARGEST = sys.float_info.max
LOST, UNKNOWN = "lost", "unknown"  # states that status.json never holds


@dataclass(frozen=True)
class RunFolder:
    """The content of a run folder.

    Attributes:
        path: of the folder.
        settings: {name: {"value", "source"}}.
        environment: content of environment.json.
        status: content of status.json.
        log: content of metrics.jsonl.
        notes: messages about what could not be read.
    """

    path: Path
    settings: JsonObject
    environment: JsonObject
    status: JsonObject
    log: MetricsLog
    notes: list[str]

    def value(self, name: str) -> object:
        """Return the value of a setting, None for an unknown one."""
        setting: JsonObject = self.settings.get(name, {})
        return setting.get("value")


def is_run(folder: Path) -> bool:
    """Return whether a folder is that of a run."""
    return any((folder / name).is_file() for name in RUN_FILES)


def read_run(path: str | os.PathLike[str]) -> RunFolder:
    """Read a run folder. Raises UserError for anything else."""
    folder = Path(os.path.abspath(path))
    if not folder.is_dir():
        why = "not a folder" if folder.exists() else "no such folder"
        raise UserError(f"{path}: {why}, expected a run folder", file=str(path), field="run")
    if not is_run(folder):
        runs = [parent for parent in (folder.parent, folder.parent.parent) if is_run(parent)]
        hint = f"did you mean {runs[0]}?" if runs else "`list` prints the runs below a folder"
        raise UserError(
            f"{path}: not a run folder (it holds none of {', '.join(RUN_FILES)}); {hint}",
            file=str(path),
            field="run",
        )
    notes: list[str] = []
    log = read_log(folder / "metrics.jsonl", notes)
    run = read_files(folder, log)
    return replace(run, notes=[*run.notes, *notes])


def read_files(folder: Path, log: MetricsLog) -> RunFolder:
    """Return the content of a run folder whose metrics.jsonl has been read already."""
    notes: list[str] = []
    settings = read_object(folder / "settings.json", notes).get("settings")
    return RunFolder(
        path=folder,
        settings={
            name: setting
            for name, setting in as_object(settings).items()
            if isinstance(setting, dict) and "value" in setting
        },
        environment=read_object(folder / "environment.json", notes),
        status=read_object(folder / "status.json", notes),
        log=log,
        notes=[*notes, *log.notes("metrics.jsonl")],
    )


def read_object(path: Path, notes: list[str] | None = None) -> JsonObject:
    """Read the object in a json file, with None for numbers that are not finite.

    Returns {} without such an object, and adds the reason to `notes`.
    """
    notes = [] if notes is None else notes
    try:
        content = finite(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        notes.append(f"{path.name}: {error.strerror}")
        return {}
    except (ValueError, RecursionError) as error:
        notes.append(f"{path.name}: not json ({error})")
        return {}
    if not isinstance(content, dict):
        notes.append(f"{path.name}: expected an object, found {type(content).__name__}")
    return as_object(content)


def read_log(path: Path, notes: list[str]) -> MetricsLog:
    """Read metrics.jsonl. Adds a note about lines that cannot be read."""
    log = MetricsLog()
    try:
        content = path.read_bytes()
    except OSError as error:
        notes.append(f"{path.name}: {error.strerror}")
        return log
    if content:
        log.feed(content)
    return log


def state_of(status: Mapping[str, object], now: float | None = None) -> str:
    """Return the state of a run.

    It is "running", "finished", "stopped" or "failed" as in status.json; "lost" for one that is
    running but has had no heartbeat for `MAX_SILENCE` seconds; "unknown" without a state.

    Args:
        status: content of status.json.
        now: time in seconds since 1970, the current time by default.
    """
    state = status.get("state")
    if not isinstance(state, str):
        return UNKNOWN
    heartbeat, now = status.get("heartbeat"), time.time() if now is None else now
    is_silent = is_number(heartbeat) and now - heartbeat > MAX_SILENCE
    return LOST if state == "running" and is_silent else state


def best_of(status: Mapping[str, object]) -> JsonObject | None:
    """Return {"metric", "score", "step", "scores"} of the best evaluation, or None."""
    best = as_object(status.get("best"))
    if not (isinstance(best.get("metric"), str) and is_number(best.get("step"))):
        return None
    return {
        "metric": best["metric"],
        "score": number_or_none(best.get("score")),
        "step": best["step"],
        "scores": {
            key: number_or_none(value) for key, value in as_object(best.get("scores")).items()
        },
    }


def as_object(value: object) -> JsonObject:
    """Return a dict as it is, {} for anything else."""
    return value if isinstance(value, dict) else {}


def is_number(value: object) -> TypeGuard[int | float]:
    """Return whether a value is a number that a float can hold; a bool is none."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return -LARGEST <= value <= LARGEST


def number_or_none(value: object) -> int | float | None:
    """Return a number as it is, None for anything else."""
    return value if is_number(value) else None
