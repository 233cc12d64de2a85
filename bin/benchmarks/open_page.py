"""The page of a run, open while it trains: the studio's server, and a client that reads it."""

import contextlib
import json
import multiprocessing
import socket
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

TOKEN = "benchmark"
API = "api/v1"
SECONDS = 60  # until the server responds


@contextlib.contextmanager
def open_page(run: Path, state: Path) -> Iterator[None]:
    """Serve a run within the block, to a client that reads its events and lists until the end.

    Both are children of this process, so that they rest with the data workers while the bare loop
    runs. A browser's drawing is not in it: it happens on the machine of the user.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    address = f"http://127.0.0.1:{port}/{API}"
    processes = [
        context.Process(target=serve, args=(run.parent, state, port), daemon=True),
        context.Process(target=read_like_a_page, args=(address,), daemon=True),
    ]
    for process in processes:
        process.start()
    try:
        first_response(f"{address}/session")
        yield
    finally:
        for process in processes:
            process.kill()
            process.join()


def serve(runs: Path, state: Path, port: int) -> None:
    """Run a server for the runs in a folder."""
    import uvicorn

    from visionloop.bin.web.app import create_app
    from visionloop.bin.web.config import StudioConfig

    config = StudioConfig(data=(runs,), runs=(runs,), models=(runs,), state=state, port=port)
    uvicorn.run(create_app(config, TOKEN), port=port, log_level="error", access_log=False)


def read(address: str) -> bytes:
    """Return the body of a response."""
    request = urllib.request.Request(address, headers={"Authorization": f"Bearer {TOKEN}"})
    with urllib.request.urlopen(request, timeout=10) as response:
        content: bytes = response.read()
    return content


def first_response(address: str) -> bytes:
    """Return the body of the first response of a server that is being started."""
    end = time.monotonic() + SECONDS
    while True:
        try:
            return read(address)
        except OSError:
            assert time.monotonic() < end, "the studio does not respond"
            time.sleep(0.2)


def read_like_a_page(address: str) -> None:
    """Read the report, then the stream of events, and the run's state at each event."""
    while not (runs := json.loads(first_response(f"{address}/runs"))["runs"]):
        time.sleep(0.5)  # the run has written nothing yet
    run = f"{address}/runs/{runs[0]['id']}"
    report = json.loads(read(f"{run}/report"))
    request = urllib.request.Request(
        f"{run}/events?cursor={report['cursor']}", headers={"Authorization": f"Bearer {TOKEN}"}
    )
    with urllib.request.urlopen(request) as events:
        for line in events:
            if line.startswith(b"data:"):
                read(run)
