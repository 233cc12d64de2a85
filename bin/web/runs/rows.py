"""Rows of runs as the API shows them."""

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from visionloop.bin.reports.branches import changes_text, source_of
from visionloop.bin.reports.contents import how_to_repeat
from visionloop.bin.reports.labels import describe_task
from visionloop.bin.reports.run_folder import RunFolder, as_object, best_of, state_of
from visionloop.bin.web.problems import StatusError
from visionloop.bin.web.runs.index import IndexedRun
from visionloop.bin.web.runs.records import evaluated_steps
from visionloop.bin.web.runs.text import float_or_none, int_or_none, text_of, text_or_none

GIB = 2**30


class Best(BaseModel):
    """The best evaluation so far by the score that picks best/."""

    metric: str
    score: float | None
    step: int | None


class Metric(BaseModel):
    """A score: how it is called, shown and compared."""

    key: str
    label: str
    format: str = Field(description="percent: a share of 1, shown times 100; float; integer")
    higher_is_better: bool | None
    description: str


class Source(BaseModel):
    """The checkpoint of another run that a branch began with."""

    id: str | None = Field(description="of the run, null where it is not among the runs here")
    name: str
    step: int
    changes: str = Field(description="of the settings, in one line")


class RunRow(BaseModel):
    """A run in a list. Times are in seconds since 1970."""

    id: str
    name: str
    path: str
    task: str | None
    model: str | None
    data: str | None = Field(description="name of the data folder")
    state: str = Field(
        description="running, finished, stopped, failed; lost: no heartbeat for a minute; unknown"
    )
    step: int | None
    steps: int | None
    epoch: float | None
    eta: float | None
    heartbeat: float | None
    peak_gib: float | None = Field(description="memory, of the newest start")
    nonfinite_steps: int | None = Field(description="of the newest start, which changed nothing")
    best: Best | None
    metric: Metric | None = Field(description="of `best`")
    started: float | None
    age_seconds: float = Field(description="since the last heartbeat")
    error: StatusError | None
    branch: Source | None = None
    depth: int = Field(
        default=0, description="in a list: 1 for a branch below its source, and so on"
    )
    job: str | None = Field(description="id of the job that started it here")
    note: str


class RunDetail(RunRow):
    """A run with its settings. disk_free_gib, disk_used_gib: of its file system."""

    settings: dict[str, Any] = Field(description="{name: {value, source}}")
    environment: dict[str, Any]
    disk_free_gib: float | None
    disk_used_gib: float | None
    evaluations: list[int] = Field(description="steps with a record")
    has_best: bool
    command_text: str | None


class RunRows(BaseModel):
    """A page of the list of runs."""

    runs: list[RunRow]
    total: int = Field(description="number of runs that match")


class RunLabel(BaseModel):
    """Name, note and job that this server has for a run."""

    name: str | None = None
    note: str = ""
    job: str | None = None


def row_of(run: IndexedRun, label: RunLabel, ids: Mapping[Path, str] | None = None) -> RunRow:
    """Return the row of a run. ids: {folder: id} of the runs that a branch may come from."""
    status, now = run.status, time.time()
    task, data, best = text_or_none(run.value("task")), run.value("data"), best_row(status)
    return RunRow(
        id=run.id,
        name=label.name or run.name,
        path=text_of(run.path),
        task=task,
        model=text_or_none(run.value("model")),
        data=text_of(Path(str(data)).name) if data else None,
        state=text_of(state_of(status, now)),
        step=int_or_none(status.get("step")),
        steps=int_or_none(status.get("steps")),
        epoch=float_or_none(status.get("epoch")),
        eta=float_or_none(status.get("eta")),
        heartbeat=float_or_none(status.get("heartbeat")),
        peak_gib=float_or_none(status.get("peak_gib")),
        nonfinite_steps=int_or_none(status.get("nonfinite_steps")),
        best=best,
        metric=None if best is None else metric_of(task, best.metric),
        started=run.started,
        age_seconds=round(max(0.0, now - run.active), 1),
        error=error_of(status),
        branch=branch_row(run, ids or {}),
        job=label.job,
        note=label.note,
    )


def branch_row(run: IndexedRun, ids: Mapping[Path, str]) -> Source | None:
    """Return the source of a branch, None for any other run. ids: {folder of a run: its id}."""
    if run.branch is None:
        return None
    found = [ids[path] for path in source_of(run.path, run.branch) if path in ids]
    return Source(
        id=found[0] if found else None,
        name=text_of(run.branch["name"]),
        step=run.branch["step"],
        changes=text_of(changes_text(run.branch["changes"])),
    )


def best_row(status: Mapping[str, object]) -> Best | None:
    """Return the best evaluation of a status.json, None before the first one."""
    best = best_of(status)
    if best is None:
        return None
    return Best(
        metric=text_of(best["metric"]),
        score=float_or_none(best["score"]),
        step=int_or_none(best["step"]),
    )


def metric_of(task: str | None, key: str) -> Metric:
    """Return the description of a score."""
    (metric,) = describe_task(task, [key])["metrics"]
    return Metric(**metric)


def error_of(status: Mapping[str, object]) -> StatusError | None:
    """Return the error of a status.json, None without one."""
    error = as_object(status.get("error"))
    if not error:
        return None
    return StatusError(
        code=text_of(error.get("code") or "defect"),
        message=text_of(error.get("message") or ""),
        **{name: text_or_none(error.get(name)) for name in ("file", "field", "hint")},
    )


def detail_of(row: RunRow, folder: RunFolder) -> RunDetail:
    """Return a row with the content of the run's folder."""
    try:
        disk = shutil.disk_usage(folder.path)
    except OSError:
        disk = None
    repeat = how_to_repeat(folder)
    return RunDetail(
        **dict(row),
        settings=folder.settings,
        environment=folder.environment,
        disk_free_gib=disk and round(disk.free / GIB, 2),
        disk_used_gib=disk and round(disk.used / GIB, 2),
        evaluations=evaluated_steps(folder.path),
        has_best=(folder.path / "best").is_dir(),
        command_text=text_or_none(repeat["command"] or repeat["from_settings"]),
    )
