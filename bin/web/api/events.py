"""`/events` and `/runs/{id}/events`: changes as Server-Sent Events, or by polling."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from pydantic import BaseModel, Field

from visionloop.bin.web.api.parameters import Services, TheRun
from visionloop.bin.web.runs.cursor import CURSOR_PATTERN
from visionloop.bin.web.runs.events import Tail
from visionloop.bin.web.runs.streams import EventStream, changes, run_events

router = APIRouter(tags=["events"])
Cursor = Annotated[
    str, Query(pattern=CURSOR_PATTERN, description="id of the last event that the client has")
]
STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}
}


class PolledEvent(BaseModel):
    """An event. data: JSON, as text."""

    id: str
    event: str = Field(description="metrics: a line of metrics.jsonl; status; reset")
    data: str


class Events(BaseModel):
    """The events after a cursor. more: there are more of them now."""

    events: list[PolledEvent]
    cursor: str
    more: bool


@router.get("/runs/{id}/events", response_class=Response, responses=STREAM)
def stream_run(
    studio: Services,
    run: TheRun,
    cursor: Cursor = "0",
    last_event_id: Annotated[str | None, Header(pattern=CURSOR_PATTERN)] = None,
) -> Response:
    """Stream the lines of metrics.jsonl after a cursor, and status.json when it changes.

    `reset`: a resumed run has cut the file; all its lines follow. The header Last-Event-ID counts
    more than `cursor`.
    """
    tail = Tail(run.path, last_event_id or cursor)
    return EventStream(studio.streams, run_events(studio.streams, tail))


@router.get("/runs/{id}/events/poll")
def poll_run(run: TheRun, cursor: Cursor = "0") -> Events:
    """Return the events after a cursor. The last one is always the current status."""
    tail = Tail(run.path, cursor)
    events = [PolledEvent(**event._asdict()) for event in tail.events()]
    return Events(events=events, cursor=tail.cursor, more=not tail.at_end)


@router.get("/events", response_class=Response, responses=STREAM)
def stream_changes(studio: Services) -> Response:
    """Stream `changed` with counters of jobs and runs, whenever one has grown."""

    def revisions() -> dict[str, int]:
        return {"jobs": studio.store.revision, "runs": studio.runs.revision}

    return EventStream(studio.streams, changes(studio.streams, revisions))
