"""The API takes whatever its own description allows, and more, without a defect.

FUZZ_EXAMPLES=2000 .venv/bin/pytest -n 0 tests/bin/web/test_fuzz.py   looks wider than the default.
"""

import os
import warnings
from collections import Counter
from contextlib import suppress

import pytest
import requests
import schemathesis
from followed_run import GrowingRun
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.testclient import TestClient
from studio_client import TOKEN, studio_config

from visionloop.bin.web.app import create_app
from visionloop.bin.web.problems import MEDIA_TYPE

pytestmark = pytest.mark.slow
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "12"))
ORIGIN = "http://127.0.0.1:8470"
HEADERS = {"Authorization": f"Bearer {TOKEN}", "X-Visionloop": "1"}
STREAMS = ("/api/v1/events", "/api/v1/runs/{id}/events")  # never end; see test_runs_events.py
NASTY = (
    "",
    "..",
    "../../etc/passwd",
    "/",
    "\n",
    "a\r\nX: y",
    "<img src=x onerror=alert(1)>",
    "%00",
)
CHECKS = [
    schemathesis.checks.not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
    content_type_conformance,
]


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """An app with two runs and two jobs, none of which is started."""
    folder = tmp_path_factory.mktemp("studio")
    config = studio_config(folder)
    for name in ("one", "<b>two"):
        run = GrowingRun(config.runs[0] / name)
        run.train(1, 30)
        run.status("finished")
    (config.data[0] / "images" / "train" / "cat").mkdir(parents=True)
    app = create_app(config, TOKEN)
    with TestClient(app, base_url=ORIGIN, headers=HEADERS) as client:
        app.state.studio.queue.close()
        app.state.studio.runs.scan()
        app.state.client = client
        body = {"task": "classification", "settings": {"data": str(config.data[0] / "images")}}
        for start in (True, False):
            client.post("/api/v1/jobs", json=body | {"start": start}).raise_for_status()
        yield app


def known_ids(client, path):
    """Ids that exist, of the kind that a path has."""
    kind = path.split("/")[3]
    rows = client.get(f"/api/v1/{kind}").json().get(kind, []) if kind in ("runs", "jobs") else []
    return [row["id"] for row in rows]


def operations_of(app):
    """The operations of the app's description that end by themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        schema = schemathesis.openapi.from_dict(app.openapi())
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.path not in STREAMS:
            yield operation


def send(client, case):
    """The answer to a case; the description tells which."""
    prepared = requests.Request(**case.as_transport_kwargs(base_url=ORIGIN)).prepare()
    headers = {name: value for name, value in prepared.headers.items() if name != "Content-Length"}
    return client.request(prepared.method, prepared.url, content=prepared.body, headers=headers)


def check_answer(case, response, is_described):
    """Check that an answer is no defect, and that the description tells its form."""
    place = f"{case.as_curl_command()}\n{response.text}"
    assert response.status_code < 500 or response.status_code == 503, place
    if response.status_code >= 400:
        assert response.headers["content-type"] == MEDIA_TYPE, place
        assert response.json()["status"] == response.status_code
    if is_described:
        case.validate_response(response, checks=CHECKS)


def fuzz(app, mode):
    """Call every operation with generated parameters, and with ids that exist.

    Returns {status: number of answers}.
    """
    client, counts = app.state.client, Counter()

    def fuzz_operation(operation):
        @given(
            case=operation.as_strategy(generation_mode=mode),
            id=st.sampled_from([None, *known_ids(client, operation.path)]),
            nasty=st.sampled_from([None, None, *NASTY]),
        )
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def call(case, id, nasty):
            parameters = case.path_parameters or {}
            replaced = {"id": id, "name": nasty, "kind": nasty}
            changes = {key: value for key, value in replaced.items() if value and key in parameters}
            parameters.update(changes)
            response = send(client, case)
            counts[response.status_code] += 1
            check_answer(case, response, is_described=not changes.keys() - {"id"})

        call()

    for operation in operations_of(app):
        with suppress(Unsatisfiable):  # it takes nothing that could be wrong
            fuzz_operation(operation)
    return counts


def test_inputs_that_the_description_allows_make_no_defect(app):
    counts = fuzz(app, schemathesis.GenerationMode.POSITIVE)
    print(dict(counts))
    assert counts[200] > 0 and sum(counts.values()) > 100


def test_inputs_that_the_description_forbids_make_no_defect(app):
    counts = fuzz(app, schemathesis.GenerationMode.NEGATIVE)
    print(dict(counts))
    assert counts[422] > 0
