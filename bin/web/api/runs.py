"""`/runs`: the runs below the roots, their report and curves."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from visionloop.bin.reports.branches import in_tree
from visionloop.bin.reports.contents import make_report
from visionloop.bin.web.api.labels import labels_of
from visionloop.bin.web.api.parameters import MOST_STEPS, Services, Texts, TheRun
from visionloop.bin.web.jobs.store import RunNote
from visionloop.bin.web.problems import Problem
from visionloop.bin.web.runs.curves import curves_between
from visionloop.bin.web.runs.rows import RunDetail, RunLabel, RunRow, RunRows, detail_of, row_of
from visionloop.bin.web.runs.text import AsciiJson

router = APIRouter(tags=["runs"])

FirstStep = Annotated[int | None, Query(ge=0, lt=MOST_STEPS)]
SearchText = Annotated[str | None, Query(max_length=200)]


class Report(BaseModel):
    """Object of a report of one run, see bin/reports/schema.json."""

    model_config = ConfigDict(extra="allow")
    tasks: list[dict[str, Any]]
    runs: list[dict[str, Any]]
    cursor: str = Field(description="of the events that follow, for /events?cursor=")


class Curves(BaseModel):
    """Training curves between two steps, as in a report."""

    curves: list[dict[str, Any]]


@router.get("/runs", response_model=RunRows)
def list_runs(
    studio: Services,
    search: SearchText = None,
    task: SearchText = None,
    state: SearchText = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0, lt=10**9)] = 0,
) -> RunRows:
    """List the runs: those that run first, then the latest, each branch below its source.

    search: a part of name, model, note.
    """
    labels, none = labels_of(studio.store), RunLabel()
    runs = studio.runs.runs()
    ids = {run.path: run.id for run in runs}
    rows = ((run, row_of(run, labels.get(run.id, none), ids)) for run in runs)
    matching = [
        (run, row)
        for run, row in rows
        if task in (None, row.task) and state in (None, row.state) and has_text(row, search)
    ]
    tree = list(in_tree(matching, lambda pair: (pair[0].path, pair[0].branch)))
    shown = [row.model_copy(update={"depth": depth}) for depth, (_, row) in tree]
    return RunRows(runs=shown[offset : offset + limit], total=len(shown))


def has_text(row: RunRow, search: str | None) -> bool:
    """Return whether a text of a row contains a part, in any case."""
    texts = (row.name, row.path, row.model, row.data, row.note)
    return search is None or any(search.casefold() in text.casefold() for text in texts if text)


@router.get("/runs/{id}", response_model=RunDetail)
def read_run(studio: Services, run: TheRun) -> Response:
    """Return a run with its settings."""
    folder, _ = studio.reader.folder(run)
    ids = {other.path: other.id for other in studio.runs.runs()} if run.branch else {}
    row = row_of(run, labels_of(studio.store).get(run.id, RunLabel()), ids)
    return AsciiJson(detail_of(row, folder).model_dump())


@router.patch("/runs/{id}", response_model=RunDetail)
def edit_run(studio: Services, run: TheRun, body: Texts) -> Response:
    """Change the name that is shown, or the note. An empty name: that of the folder again."""
    label = labels_of(studio.store).get(run.id, RunLabel())
    name = label.name if body.name is None else body.name.strip()
    note = label.note if body.note is None else body.note
    studio.store.set_run_note(run.id, run.path, RunNote(name or "", note))
    return read_run(studio, run)


@router.get("/runs/{id}/report", response_model=Report)
def read_report(studio: Services, run: TheRun) -> Response:
    """Return the object that the report's drawing code draws."""
    folder, part, cursor = studio.reader.part(run)
    report = make_report([folder], describe=lambda _, __: part)
    return AsciiJson({**report, "cursor": cursor})


@router.get("/runs/{id}/curves", response_model=Curves)
def read_curves(
    studio: Services,
    run: TheRun,
    first: FirstStep = None,
    last: FirstStep = None,
    points: Annotated[int, Query(ge=2, le=10_000)] = 2000,
) -> Response:
    """Return the training curves between two steps, reduced to at most `points` points each."""
    if first is not None and last is not None and first > last:
        raise Problem(422, "bad_input", "first: expected a step before `last`", field="first")
    folder, _ = studio.reader.folder(run)
    return AsciiJson({"curves": curves_between(folder.log.training, first, last, points)})
