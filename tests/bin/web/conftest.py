"""A server over the runs of a test, and calls of its API."""

import pytest
from fastapi.testclient import TestClient

from visionloop.bin.web.app import create_app
from visionloop.bin.web.config import API, StudioConfig


@pytest.fixture
def root(tmp_path):
    """The folder with the runs; data/ and models/ are beside it."""
    for name in ("data", "runs", "models"):
        (tmp_path / name).mkdir()
    return (tmp_path / "runs").resolve()


@pytest.fixture
def server(root, tmp_path):
    """A client of a server, which looks for changes of the runs before each call."""
    config = StudioConfig(
        data=(root.parent / "data",),
        runs=(root,),
        models=(root.parent / "models",),
        state=tmp_path / "state",
    )
    app = create_app(config, "token")
    with TestClient(app, base_url="http://127.0.0.1") as client:
        client.headers.update({"Authorization": "Bearer token", "X-Visionloop": "1"})
        app.state.studio.queue.close()  # jobs wait: none is needed to run here
        # it does so by itself after a second
        client.event_hooks["request"].append(lambda _: app.state.studio.runs.scan())
        yield client


@pytest.fixture
def call(server):
    """Return call(path, status=200, **query), which returns the answer."""

    def call(path, /, status=200, **query):
        response = server.get(API + path, params=query)
        assert response.status_code == status, response.text
        return response

    return call


@pytest.fixture
def get(call):
    """Return get(path, status=200, **query), which returns the JSON of the answer."""
    return lambda path, /, status=200, **query: call(path, status, **query).json()


@pytest.fixture
def change(server):
    """Return change(method, path, body, status=200), which returns the JSON of the answer."""

    def change(method, path, body, status=200):
        response = server.request(method, API + path, json=body)
        assert response.status_code == status, response.text
        return response.json()

    return change
