"""Parameters that several endpoints share: the services, ids in addresses, bodies, texts."""

from typing import Annotated, TypeAlias

from fastapi import Depends, Query
from fastapi import Path as PathParameter
from pydantic import BaseModel, ConfigDict, Field

from visionloop.bin.web.runs.identity import DIGITS
from visionloop.bin.web.runs.index import IndexedRun
from visionloop.bin.web.studio import Studio, studio_of

MOST_STEPS = 2**53  # a larger number is not exact in a browser
RUN_ID_PATTERN = rf"[0-9a-f]{{{DIGITS}}}"
JOB_ID_PATTERN = r"^[0-9A-Za-z]{1,64}$"

Services: TypeAlias = Annotated[Studio, Depends(studio_of)]
JobId: TypeAlias = Annotated[str, PathParameter(pattern=JOB_ID_PATTERN)]
RunId: TypeAlias = Annotated[
    str, PathParameter(pattern=f"^{RUN_ID_PATTERN}$", description="of a run")
]
Name: TypeAlias = Annotated[str, Field(max_length=200)]
Note: TypeAlias = Annotated[str, Field(max_length=10_000)]
LogOffset: TypeAlias = Annotated[int, Query(ge=-1, le=MOST_STEPS)]


class Body(BaseModel):
    """A request."""

    model_config = ConfigDict(extra="forbid")


class Texts(Body):
    """New texts of a job or a run. null: as before; an empty name of a run: that of its folder."""

    name: Name | None = None
    note: Note | None = None


def run_of(studio: Services, id: RunId) -> IndexedRun:
    """Return the run of an address, as a dependency of endpoints."""
    return studio.runs.run(id)


TheRun: TypeAlias = Annotated[IndexedRun, Depends(run_of)]
