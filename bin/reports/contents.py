"""Builder of the object that a page draws; schema.json defines it."""

import math
import os
import shlex
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from visionloop.bin.model_zoo.listing import MODEL_ZOOS
from visionloop.bin.reports.branches import read_branch
from visionloop.bin.reports.curves import MAX_POINTS, score_curves, training_curves
from visionloop.bin.reports.labels import describe_task
from visionloop.bin.reports.metrics_log import Column, TrainingLog
from visionloop.bin.reports.records import (
    FIXED_SAMPLES,
    FIXED_STEPS,
    WORST_SAMPLES,
    ImageOf,
    Intervals,
    ReadObject,
    fixed_samples,
    image_url,
    intervals_of,
    last_evaluation,
    read_records,
    worst_samples,
)
from visionloop.bin.reports.run_folder import (
    RunFolder,
    as_object,
    best_of,
    is_number,
    number_or_none,
    read_object,
    read_run,
    state_of,
)
from visionloop.engine.checkpoints.files import finite
from visionloop.engine.types import JsonObject

TASKS = tuple(zoo.command for zoo in MODEL_ZOOS)
LIMITS = {
    "points": MAX_POINTS,
    "fixed_samples": FIXED_SAMPLES,
    "fixed_steps": FIXED_STEPS,
    "worst_samples": WORST_SAMPLES,
}


def report_of(paths: Sequence[str | os.PathLike[str]]) -> JsonObject:
    """Return the object of run folders, in their order.

    Raises UserError for a path that is not a run folder.
    """
    return make_report([read_run(path) for path in paths])


def make_report(
    folders: Sequence[RunFolder],
    *,
    describe: Callable[[RunFolder, str], JsonObject] | None = None,
) -> JsonObject:
    """Return the object of run folders.

    Args:
        folders: of the runs.
        describe: returns the part of a run, given its name, as `describe_run` does.
    """
    names = names_of([folder.path for folder in folders])
    describe = describe or describe_run
    runs = [describe(folder, name) for folder, name in zip(folders, names, strict=True)]
    keys: dict[str | None, dict[str, None]] = {}
    for run in runs:
        scores = dict.fromkeys(curve["key"] for curve in run["scores"])
        keys.setdefault(run["task"], {}).update(scores)
    return {
        "schema": 1,
        "created": time.time(),
        "visionloop": metadata.version("visionloop"),
        "limits": LIMITS,
        "tasks": [describe_task(task, list(scores)) for task, scores in keys.items()],
        "runs": runs,
    }


def names_of(paths: Sequence[Path]) -> list[str]:
    """Return a short, unique name for each folder.

    It is the name of the folder, with as many parents as are needed to distinguish the paths.
    """
    for depth in range(1, max(len(path.parts) for path in paths)):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(set(paths)):
            return names
    return [str(path) for path in paths]


def describe_run(
    folder: RunFolder,
    name: str,
    *,
    image_of: ImageOf = image_url,
    read: ReadObject = read_object,
) -> JsonObject:
    """Return the part of the object for one run.

    Args:
        folder: of the run.
        name: to show.
        image_of: returns the address of an image.
        read: reads a record.
    """
    notes = list(folder.notes)
    records = read_records(folder.path, notes, read)
    intervals = intervals_of(records)
    evaluations, training = folder.log.lines("eval"), folder.log.training
    if not evaluations:
        notes.append("no evaluation yet: no scores, classes or samples")
    elif not records:
        notes.append("no evaluation records in this folder: no intervals, classes or samples")
    data = folder.value("data")
    return {
        "name": name,
        "branch": read_branch(folder.path, notes),
        "task": text_or_none(folder.value("task")),
        "model": text_or_none(folder.value("model")),
        "data": Path(str(data)).name if data else None,
        **as_object(finite(progress(folder.status, [training.last, *evaluations[-1:]]))),
        "best": with_interval(best_of(folder.status), intervals),
        "seconds": finite(training_seconds(training)),
        "curves": training_curves(training),
        "scores": score_curves(evaluations, intervals),
        "time_breakdowns": [time_breakdown_of(line) for line in folder.log.lines("time_breakdown")],
        "last_evaluation": last_evaluation(records),
        "fixed": fixed_samples(records, notes, image_of),
        "worst": worst_samples(records, notes, image_of),
        "settings": {
            key: {"value": setting["value"], "source": str(setting.get("source", ""))}
            for key, setting in folder.settings.items()
        },
        "environment": folder.environment,
        "repeat": how_to_repeat(folder),
        "notes": notes,
    }


def progress(status: JsonObject, lines: Sequence[JsonObject]) -> JsonObject:
    """Return state, error, step, steps, epoch, heartbeat and eta of a run.

    Without a status.json, step and epoch are those of the last line of metrics.jsonl.
    """
    last = max(lines, key=lambda line: line.get("step", 0))
    numbers = {
        name: number_or_none(status.get(name))
        for name in ("step", "steps", "epoch", "heartbeat", "eta")
    }
    for name in ("step", "epoch"):
        if numbers[name] is None:
            numbers[name] = number_or_none(last.get(name))
    message = as_object(status.get("error")).get("message")
    return {"state": state_of(status), "error": text_or_none(message), **numbers}


def with_interval(best: JsonObject | None, intervals: Intervals) -> JsonObject | None:
    """Return the best score with the interval of its evaluation, None without one."""
    if best is None:
        return None
    return best | {"interval": intervals.get(best["step"], {}).get(best["metric"])}


def training_seconds(training: TrainingLog) -> float | None:
    """Return the seconds in training steps over all starts, without evaluations and saves.

    A line has the mean of the steps since the line before.
    """
    if not training:
        return None
    column = training.columns.get("step_ms", Column(array("q"), array("d")))
    step_ms = dict(zip(column.steps, column.values, strict=True))
    starts = [0, *training.steps]
    return sum(
        (step - start) * step_ms[step] / 1000
        for step, start in zip(training.steps, starts, strict=False)
        if not math.isnan(step_ms.get(step, math.nan))
    )


def time_breakdown_of(line: JsonObject) -> JsonObject:
    """Return {"step", "parts": {part: {"seconds", "share"}}}."""
    parts = {
        name: {"seconds": row["seconds"], "share": number_or_none(row.get("share"))}
        for name, row in line.items()
        if isinstance(row, dict) and is_number(row.get("seconds"))
    }
    return {"step": line["step"], "parts": parts}


def how_to_repeat(folder: RunFolder) -> JsonObject:
    """Return {"command", "from_settings", "commit"}, None for what is not known.

    command: the command line as it was typed; from_settings: a command that reads the settings of
    the run.
    """
    environment: Mapping[str, object] = folder.environment
    words, task = environment.get("command"), folder.value("task")
    command = from_settings = None
    if isinstance(words, list) and words:
        command = command_line(list(map(str, words)), environment.get("processes"))
    if task in TASKS:
        settings = shlex.quote(str(folder.path / "settings.json"))
        output = "--run-name" if folder.value("run_name") else "--output"
        from_settings = f"python bin/{task}.py train --config {settings} {output} NEW"
    return {
        "command": command,
        "from_settings": from_settings,
        "commit": text_or_none(environment.get("git_commit")),
    }


def command_line(words: Sequence[str], processes: object) -> str:
    """Return a command line.

    Several processes are started as on one machine: nothing is recorded about other machines.
    """
    launcher = "python "
    if is_number(processes) and processes > 1:
        launcher = f"torchrun --nproc-per-node {processes} "
    return (launcher if words[0].endswith(".py") else "") + shlex.join(words)


def text_or_none(value: object) -> str | None:
    """Return a value as text, None as it is."""
    return None if value is None else str(value)
