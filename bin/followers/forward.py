"""Forwarding of a run until its end."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from visionloop.bin.followers.receiver import Receiver, ReceiverError, advance, new_values
from visionloop.bin.followers.source import ENDED, Row, RunSource, RunState
from visionloop.engine.errors import UserError

BATCH = 100  # rows: below the 1000 points that MLflow takes at once
LONGEST_WAIT = 300  # seconds between two tries of a receiver that cannot be reached


class Forwarder:
    """Forwards a run to a receiver, each point once.

    The receiver itself says which points it has. This is asked at the start and after every error,
    and the file is then read from its first line.
    """

    def __init__(self, source: RunSource, receiver: Receiver) -> None:
        self.source, self.receiver = source, receiver
        self.num_points = 0
        self._last: dict[str, int] | None = None  # None: has to be asked
        self._has_settings = False
        self._state: RunState | None = None

    def forward(self) -> str:
        """Forward what is new and return the state of the run."""
        state = self.source.state()  # first: after an end no line follows
        try:
            self._send(state)
        except ReceiverError:
            self._last = None
            raise
        return state.state

    def _send(self, state: RunState) -> None:
        if self._last is None:
            self._last = self.receiver.connect()
            self.source.rewind()
        if not self._has_settings and (settings := self.source.settings()):
            self.receiver.send_settings(settings)
            self._has_settings = True
        batch: list[Row] = []
        ahead = dict(self._last)
        for row in self.source.new_rows():
            new = new_values(ahead, row)
            if new is None:
                continue
            batch.append(new)
            advance(ahead, new)
            if len(batch) == BATCH:
                self._send_rows(batch)
                batch = []
        if batch:
            self._send_rows(batch)
        self._last = ahead
        if state != self._state:
            self.receiver.send_state(state)
            self._state = state

    def _send_rows(self, batch: Sequence[Row]) -> None:
        self.receiver.send_rows(batch)
        self.num_points += sum(len(row.values) for row in batch)


def follow(
    source: RunSource,
    receiver: Receiver,
    *,
    interval: float,
    once: bool = False,
    artifacts: bool = False,
) -> None:
    """Forward a run until it has ended.

    Raises ReceiverError for a receiver that cannot be reached at the start, or at all with `once`;
    later on it is tried again and again.

    Args:
        source: the run.
        receiver: its destination.
        interval: seconds between two looks at the run.
        once: forward what is there and return.
        artifacts: upload best/ of a run that has finished.
    """
    forwarder = Forwarder(source, receiver)
    state = forwarder.forward()
    print(f"{source.folder} -> {receiver.label}", flush=True)
    wait = interval
    while not once and state not in ENDED:
        time.sleep(wait)
        try:
            state, wait = forwarder.forward(), interval
        except ReceiverError as error:
            wait = min(LONGEST_WAIT, 2 * wait)
            print(f"warning: {error}; next try in {wait:.0f} s", file=sys.stderr, flush=True)
    if artifacts and state == "finished":
        receiver.send_folder(best_folder(source.folder))
    receiver.close()
    print(f"{forwarder.num_points} points forwarded, the run is {state}")


def best_folder(run: Path) -> Path:
    """Return best/ of a run. Raises UserError without it."""
    if not (run / "best").is_dir():
        raise UserError(f"{run}: has no best/ to upload", file=str(run / "best"))
    return run / "best"
