"""`/comparisons`: several runs in one report, and the difference of two on the same samples."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from visionloop.bin.web.api.runs import TheStudio
from visionloop.bin.web.problems import Problem
from visionloop.bin.web.runs.comparison import compared
from visionloop.bin.web.runs.identity import DIGITS
from visionloop.bin.web.runs.labels import metrics_of
from visionloop.bin.web.runs.text import AsciiJson

router = APIRouter(tags=["comparisons"])
MOST_RUNS = 10
ID = rf"[0-9a-f]{{{DIGITS}}}"
Ids = Annotated[
    str,
    Query(
        pattern=rf"^{ID}(,{ID}){{1,{MOST_RUNS - 1}}}$",
        description=f"ids of two to {MOST_RUNS} runs, with commas between them",
    ),
]


class Comparison(BaseModel):
    """Object of a report of several runs, see bin/reports/schema.json."""

    model_config = ConfigDict(extra="allow")
    tasks: list[dict[str, Any]]
    runs: list[dict[str, Any]]
    ids: list[str] = Field(description="of the runs, in the same order")
    differences: dict[str, list[Any]] = Field(description="{setting: values of the runs}")


@router.get("/comparisons", response_model=Comparison)
def compare_runs(studio: TheStudio, runs: Ids) -> Response:
    """Return the report of several runs and the settings that differ."""
    ids = runs.split(",")
    if len(set(ids)) < len(ids):
        raise Problem(422, "bad_input", "runs: a run is given twice", field="runs")
    found = [studio.runs.run(id) for id in ids]
    return AsciiJson(compared(found, studio.reader, metrics_of(studio)))
