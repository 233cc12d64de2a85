"""Server-Sent Events: responses that stay open, their limit, and their end with the server."""

import json
import time
from collections.abc import AsyncIterator, Callable, Iterable

import anyio
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from visionloop.bin.web.problems import Problem
from visionloop.bin.web.runs.events import Event, Tail

POLL_SECONDS = 0.5
COMMENT_SECONDS = 15.0  # between comments, which show that the connection is alive


class EventStreams:
    """The open streams of a server.

    Args:
        most: limit of their number.
    """

    def __init__(self, most: int) -> None:
        self.most, self.open, self.closed = most, 0, False

    def close(self) -> None:
        """End all streams at their next look."""
        self.closed = True


class EventStream(StreamingResponse):
    """A stream of events. Raises Problem (429) when too many are open."""

    def __init__(self, streams: EventStreams, content: AsyncIterator[str]) -> None:
        super().__init__(
            content, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
        )
        self.streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # here and not in the generator, which a client that leaves early never starts
        if self.streams.open >= self.streams.most:
            hint = "close other pages of this server, or poll: GET .../events/poll?cursor=N"
            detail = f"{self.streams.most} event streams are open, the limit of this server"
            raise Problem(429, "too_many_streams", detail, hint=hint)
        self.streams.open += 1
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.streams.open -= 1


async def run_events(streams: EventStreams, tail: Tail) -> AsyncIterator[str]:
    """Yield the events of a run as they come, until the server closes."""
    last_sent = time.monotonic()
    yield ": connected\n\n"
    while not streams.closed:
        events = await anyio.to_thread.run_sync(tail.events)
        if events:
            last_sent = time.monotonic()
            yield event_text(events)
        elif time.monotonic() - last_sent > COMMENT_SECONDS:
            last_sent = time.monotonic()
            yield ": alive\n\n"
        if tail.at_end:
            await anyio.sleep(POLL_SECONDS)


async def changes(
    streams: EventStreams, revisions: Callable[[], dict[str, int]]
) -> AsyncIterator[str]:
    """Yield an event `changed` whenever a counter has grown, and once at the start."""
    last, last_sent = dict[str, int](), time.monotonic()
    while not streams.closed:
        current = revisions()
        if current != last:
            last, last_sent = current, time.monotonic()
            yield f"event: changed\ndata: {json.dumps(current)}\n\n"
        elif time.monotonic() - last_sent > COMMENT_SECONDS:
            last_sent = time.monotonic()
            yield ": alive\n\n"
        await anyio.sleep(POLL_SECONDS)


def event_text(events: Iterable[Event]) -> str:
    """Return events as a stream has them."""
    return "".join(f"id: {id}\nevent: {event}\ndata: {data}\n\n" for id, event, data in events)
