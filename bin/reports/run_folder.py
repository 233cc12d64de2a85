"""A run's folder as it lies on the disk. What is missing or broken becomes a note: a report is most wanted of a run that went wrong."""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from visionloop.engine.checkpoints.files import finite
from visionloop.engine.errors import UserError

MARKS = ("settings.json", "status.json", "metrics.jsonl")  # any of them makes a folder a run's
SILENT_SECONDS = 60  # a heartbeat older than this: the process is gone
LOST, UNKNOWN = "lost", "unknown"  # states that no status.json holds


@dataclass(frozen=True)
class RunFolder:
    """settings: {name: {"value", "source"}}; lines: {kind: [line of metrics.jsonl] by step}; notes: what could not be read, for people."""

    path: Path
    settings: dict
    environment: dict
    status: dict
    lines: dict
    notes: list

    def value(self, name):
        """A setting's value, None where it is not known."""
        return self.settings.get(name, {}).get("value")


def is_run(folder):
    return any((folder / name).is_file() for name in MARKS)


def read_run(path):
    """The RunFolder of a path. Raises UserError for what is no run's folder."""
    folder = Path(os.path.abspath(path))
    if not folder.is_dir():
        raise UserError(
            f"{path}: {'not a folder' if folder.exists() else 'no such folder'}, expected a run's",
            file=str(path),
            field="run",
        )
    if not is_run(folder):
        parents = [parent for parent in (folder.parent, folder.parent.parent) if is_run(parent)]
        below = "; `list` shows the runs below a folder"
        did_you_mean = f"; did you mean {parents[0]}?" if parents else below
        raise UserError(
            f"{path}: not a run's folder (none of {', '.join(MARKS)} in it){did_you_mean}",
            file=str(path),
            field="run",
        )
    notes = []
    settings = read_object(folder / "settings.json", notes).get("settings")
    return RunFolder(
        path=folder,
        settings={
            name: row
            for name, row in as_object(settings).items()
            if isinstance(row, dict) and "value" in row
        },
        environment=read_object(folder / "environment.json", notes),
        status=read_object(folder / "status.json", notes),
        lines=read_lines(folder / "metrics.jsonl", notes),
        notes=notes,
    )


def read_object(path, notes):
    """The object in a json file, numbers finite; {} with a note where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        notes.append(f"{path.name}: {error.strerror}")
        return {}
    except ValueError as error:
        notes.append(f"{path.name}: not json ({error})")
        return {}
    if not isinstance(content, dict):
        notes.append(f"{path.name}: expected an object, found {type(content).__name__}")
    return finite(as_object(content))


def read_lines(path, notes):
    """{kind: lines by step} of metrics.jsonl; of two lines of one kind and step the last one counts."""
    try:
        texts = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        notes.append(f"{path.name}: {error.strerror}")
        return {}
    kinds, wrong = {}, []
    for number, text in enumerate(texts, 1):
        line = parse_line(text)
        if line is None:
            wrong.append(number)
        else:
            kinds.setdefault(line["kind"], {})[line["step"]] = line
    if wrong == [len(texts)]:
        notes.append(f"{path.name}: the last line is half-written and left out")
    elif wrong:
        notes.append(
            f"{path.name}: {len(wrong)} lines are no lines of a run and left out, the first is line {wrong[0]}"
        )
    return {kind: [by_step[step] for step in sorted(by_step)] for kind, by_step in kinds.items()}


def parse_line(text):
    """A line of metrics.jsonl, None for anything else."""
    try:
        line = json.loads(text)
    except ValueError:
        return None
    fits = (
        isinstance(line, dict)
        and isinstance(line.get("step"), int)
        and isinstance(line.get("kind"), str)
    )
    return finite(line) if fits else None


def state_of(status, now=None):
    """running, finished, stopped or failed as status.json says; lost: running without a sign of life; unknown: it says nothing."""
    state = status.get("state")
    if not isinstance(state, str):
        return UNKNOWN
    beat, now = status.get("heartbeat"), time.time() if now is None else now
    return LOST if state == "running" and is_number(beat) and now - beat > SILENT_SECONDS else state


def best_of(status):
    """{"metric", "score", "step", "scores"} of the best so far, None before the first evaluation."""
    best = as_object(status.get("best"))
    if not (isinstance(best.get("metric"), str) and is_number(best.get("step"))):
        return None
    scores = {key: number_or_none(value) for key, value in as_object(best.get("scores")).items()}
    return {
        "metric": best["metric"],
        "score": number_or_none(best.get("score")),
        "step": best["step"],
        "scores": scores,
    }


def as_object(value):
    """A dict as it is, {} for anything else."""
    return value if isinstance(value, dict) else {}


def is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


def number_or_none(value):
    return value if is_number(value) else None
