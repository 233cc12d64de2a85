"""The one object that a page is drawn from: what schema.json describes."""

import shlex
import time
from importlib import metadata
from pathlib import Path

from visionloop.bin.model_zoo.listing import TABLES
from visionloop.bin.reports.curves import MOST_POINTS, score_curves, training_curves
from visionloop.bin.reports.labels import task_facts
from visionloop.bin.reports.records import (
    FIXED_SAMPLES,
    FIXED_STEPS,
    WORST_SAMPLES,
    fixed_samples,
    intervals_of,
    last_evaluation,
    read_records,
    worst_samples,
)
from visionloop.bin.reports.run_folder import (
    as_object,
    best_of,
    is_number,
    number_or_none,
    read_run,
    state_of,
)
from visionloop.engine.checkpoints.files import finite

TASKS = tuple(table.command for table in TABLES)
LIMITS = {
    "points": MOST_POINTS,
    "fixed_samples": FIXED_SAMPLES,
    "fixed_steps": FIXED_STEPS,
    "worst_samples": WORST_SAMPLES,
}


def report_of(paths):
    """The object of these run folders, in their order. Raises UserError for a path that is no run's folder."""
    folders = [read_run(path) for path in paths]
    names = names_of([folder.path for folder in folders])
    runs = [describe_run(folder, name) for folder, name in zip(folders, names, strict=True)]
    keys = {}
    for run in runs:
        keys.setdefault(run["task"], {}).update(
            dict.fromkeys(curve["key"] for curve in run["scores"])
        )
    return finite(
        {
            "schema": 1,
            "made": time.time(),
            "visionloop": metadata.version("visionloop"),
            "limits": LIMITS,
            "tasks": [task_facts(task, list(scores)) for task, scores in keys.items()],
            "runs": runs,
        }
    )


def names_of(paths):
    """A name for each folder, as short as tells them apart: its own, or with as many of the folders above as are needed."""
    for depth in range(1, max(len(path.parts) for path in paths)):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(set(paths)):
            return names
    return [str(path) for path in paths]


def describe_run(folder, name):
    """A run's part of the object. folder: RunFolder."""
    notes = list(folder.notes)
    records = read_records(folder.path, notes)
    intervals = intervals_of(records)
    evaluations, training = folder.lines.get("eval", []), folder.lines.get("train", [])
    if not evaluations:
        notes.append("no evaluation yet: no scores, classes or samples")
    elif not records:
        notes.append("no records of evaluations in this folder: no intervals, classes or samples")
    return {
        "name": name,
        "task": text_or_none(folder.value("task")),
        "model": text_or_none(folder.value("model")),
        "data": Path(str(folder.value("data"))).name if folder.value("data") else None,
        **progress(folder.status, training + evaluations),
        "best": with_interval(best_of(folder.status), intervals),
        "seconds": spent(training),
        "curves": training_curves(training),
        "scores": score_curves(evaluations, intervals),
        "time_breakdowns": [
            time_breakdown_of(line) for line in folder.lines.get("time_breakdown", [])
        ],
        "last_evaluation": last_evaluation(records),
        "fixed": fixed_samples(records, notes),
        "worst": worst_samples(records, notes),
        "settings": {
            key: {"value": row["value"], "source": str(row.get("source", ""))}
            for key, row in folder.settings.items()
        },
        "environment": folder.environment,
        "repeat": how_to_repeat(folder),
        "notes": notes,
    }


def progress(status, lines):
    """state, error, step, steps, epoch, heartbeat and eta; without a status.json as far as the log tells."""
    last = max(lines, key=lambda line: line["step"], default={})
    known = {
        name: number_or_none(status.get(name))
        for name in ("step", "steps", "epoch", "heartbeat", "eta")
    }
    for name in ("step", "epoch"):
        known[name] = number_or_none(last.get(name)) if known[name] is None else known[name]
    message = as_object(status.get("error")).get("message")
    return {"state": state_of(status), "error": text_or_none(message), **known}


def with_interval(best, intervals):
    """The best score with its interval of that evaluation, where one was drawn."""
    return best and best | {"interval": intervals.get(best["step"], {}).get(best["metric"])}


def spent(training):
    """Seconds in training steps over all starts, evaluations and saves left out: a line has the mean of the steps since the one before."""
    if not training:
        return None
    pairs = zip([0, *(line["step"] for line in training)], training, strict=False)
    return sum(
        (line["step"] - before) * line["step_ms"] / 1000
        for before, line in pairs
        if is_number(line.get("step_ms"))
    )


def time_breakdown_of(line):
    """{"step", "parts": {part: {"seconds", "share"}}}."""
    rows = {
        name: row
        for name, row in line.items()
        if isinstance(row, dict) and is_number(row.get("seconds"))
    }
    parts = {
        name: {"seconds": row["seconds"], "share": number_or_none(row.get("share"))}
        for name, row in rows.items()
    }
    return {"step": line["step"], "parts": parts}


def how_to_repeat(folder):
    """{"command", "from_settings", "commit"}: the command line as it was typed, and one that reads the run's settings; None: not known."""
    words, task = folder.environment.get("command"), folder.value("task")
    settings = shlex.quote(str(folder.path / "settings.json"))
    place = "--run-name" if folder.value("run_name") else "--output"
    return {
        "command": typed(list(map(str, words)), folder.environment.get("processes"))
        if isinstance(words, list) and words
        else None,
        "from_settings": f"python bin/{task}.py train --config {settings} {place} NEW"
        if task in TASKS
        else None,
        "commit": text_or_none(folder.environment.get("git_commit")),
    }


def typed(words, processes):
    """A command line; with several processes as if on one machine, since nothing tells of others."""
    start = (
        f"torchrun --nproc-per-node {processes} "
        if is_number(processes) and processes > 1
        else "python "
    )
    return (start if words[0].endswith(".py") else "") + shlex.join(words)


def text_or_none(value):
    return None if value is None else str(value)
