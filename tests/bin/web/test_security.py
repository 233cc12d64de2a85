"""Requests that must not be answered: every control of the studio, one by one."""

import json

import pytest
from starlette.testclient import TestClient
from studio_client import TOKEN, studio_config

from visionloop.bin.web.app import create_app
from visionloop.bin.web.problems import Problem
from visionloop.bin.web.security.token import cookie_of

HOST = "127.0.0.1:8470"
ORIGIN = f"http://{HOST}"
SESSION = "/api/v1/session"
JOBS = "/api/v1/jobs"
OURS = {"X-Visionloop": "1"}
JSON = OURS | {"Content-Type": "application/json"}
BEARER = {"Authorization": f"Bearer {TOKEN}"}
SMALL = {"body": 1000, "upload": 4000, "event_streams": 2}


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    return create_app(studio_config(tmp_path_factory.mktemp("studio"), limits=SMALL), TOKEN)


@pytest.fixture(scope="module")
def started(app):
    with TestClient(app, base_url=ORIGIN) as client:
        yield client


@pytest.fixture
def client(started):
    """A client that is not signed in."""
    started.cookies.clear()
    return started


@pytest.fixture
def signed_in(client):
    """A client with the cookie, as a browser has it."""
    assert client.post(SESSION, json={"token": TOKEN}, headers=OURS).status_code == 204
    return client


def code_of(response):
    """(status, code) of a problem object; (status, None) of any other answer."""
    if response.headers.get("content-type") != "application/problem+json":
        return response.status_code, None
    return response.status_code, response.json()["code"]


def endpoints(client):
    """[(method, path)] of the API, with ids that do not exist."""
    paths = client.get("/api/openapi.json", headers=BEARER).json()["paths"]
    fill = {"{id}": "0" * 12, "{step}": "1", "{name}": "x", "{kind}": "mask", "{task}": "detection"}
    for path, methods in paths.items():
        for key, value in fill.items():
            path = path.replace(key, value)
        yield from ((method.upper(), path) for method in methods)


def test_no_endpoint_answers_without_the_cookie_or_the_token(client):
    checked = list(endpoints(client))
    assert len(checked) > 30
    for method, path in checked:
        expected = (
            (422, "bad_input") if (method, path) == ("POST", SESSION) else (401, "not_signed_in")
        )
        assert code_of(client.request(method, path, headers=OURS)) == expected, path
    for path in ("/api/openapi.json", "/api/v1/none", "/api/none"):
        assert code_of(client.get(path)) == (401, "not_signed_in")


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer x"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": "Bearer"},
        {"Authorization": b"Bearer \xff\xfe"},
        {"Cookie": f"visionloop_session={TOKEN}"},
        {"Cookie": "visionloop_session="},
        {"Cookie": f"other={cookie_of(TOKEN)}"},
        {"Cookie": b"visionloop_session=\xe9"},
    ],
)
def test_wrong_secrets_are_refused(client, headers):
    assert code_of(client.get(SESSION, headers=headers)) == (401, "not_signed_in")


def test_the_token_is_exchanged_for_a_cookie_that_scripts_and_other_sites_cannot_use(client):
    response = client.post(SESSION, json={"token": TOKEN}, headers=OURS)
    value, *attributes = response.headers["set-cookie"].split("; ")
    assert value == f"visionloop_session={cookie_of(TOKEN)}" and TOKEN not in value
    assert {part.lower() for part in attributes} >= {"httponly", "samesite=strict", "path=/"}
    assert not any(part.lower().startswith("domain") for part in attributes)
    assert client.get(SESSION).status_code == 200


@pytest.mark.parametrize("token", ["", "x", TOKEN + "x", TOKEN.upper(), "é", "\ud800", "x" * 201])
def test_a_wrong_token_gives_no_cookie(client, token):
    body = json.dumps({"token": token})
    response = client.post(SESSION, content=body, headers=JSON)
    assert response.status_code in (401, 422) and "set-cookie" not in response.headers


def test_the_cookie_is_found_among_malformed_ones_of_other_programs(client):
    cookies = f'other={{"x": 1}}; a=[1 2]; visionloop_session={cookie_of(TOKEN)}; b'
    assert client.get(SESSION, headers={"Cookie": cookies}).status_code == 200


def test_calls_that_change_something_need_the_header(signed_in):
    calls = [call for call in endpoints(signed_in) if call[0] not in ("GET", "HEAD")]
    assert len(calls) >= 12
    for method, path in calls:
        assert code_of(signed_in.request(method, path)) == (403, "missing_header"), path
        assert code_of(signed_in.request(method, path, headers=OURS)) != (403, "missing_header")
    for method in ("PUT", "OPTIONS", "TRACE", "QUERY"):
        assert code_of(signed_in.request(method, JOBS)) == (403, "missing_header")


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:8470",
        "127.0.0.1.evil.example",
        "localhost.evil.example:8470",
        "localhost.",
        "127.0.0.1.",
        "localhost@evil.example",
        "127.0.0.1@evil.example:8470",
        "127.0.0.2",
        "127.1",
        "2130706433",
        "0.0.0.0:8470",
        "[::]:8470",
        "::1",
        "[::1].evil.example",
        "[::ffff:127.0.0.1]:8470",
        "127.0.0.1:8470:8470",
        "127.0.0.1:x",
        "127.0.0.1, evil.example",
        " ",
    ],
)
@pytest.mark.parametrize("path", ["/", SESSION, "/static/app.js", "/api/docs"])
def test_other_names_of_this_machine_are_refused(signed_in, host, path):
    assert code_of(signed_in.get(path, headers={"Host": host})) == (421, "wrong_host")


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "LocalHost:8470", "localhost", "[::1]:8470", "[::1]"]
)
def test_names_of_the_loopback_are_accepted_with_any_port(signed_in, host):
    headers = {"Host": host, "Cookie": f"visionloop_session={cookie_of(TOKEN)}"}
    assert signed_in.get(SESSION, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "unknown"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://evil.example"},
        {"Origin": "https://127.0.0.1:8470"},
        {"Origin": "http://127.0.0.1"},
        {"Origin": "http://127.0.0.1:8471"},
        {"Origin": "http://localhost:8470"},
        {"Origin": f"{ORIGIN}.evil.example"},
        {"Origin": f"{ORIGIN}/"},
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_pages_of_other_sites_are_refused_on_every_api_call(signed_in, headers, method):
    for path in (SESSION, JOBS, "/api/openapi.json"):
        response = signed_in.request(method, path, headers=OURS | headers)
        assert code_of(response) == (403, "cross_site")


@pytest.mark.parametrize(
    "headers",
    [{}, {"Origin": ORIGIN, "Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}],
)
def test_our_own_pages_are_answered(signed_in, headers):
    assert signed_in.get(SESSION, headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/", SESSION, JOBS, "/static/app.js", "/api/none"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "TRACE"])
def test_no_answer_allows_another_origin(signed_in, path, method):
    asked = {
        "Origin": "http://evil.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "x-visionloop",
        "Access-Control-Request-Private-Network": "true",
    }
    for headers in (asked, asked | OURS, OURS | {"Origin": ORIGIN}):
        response = signed_in.request(method, path, headers=headers)
        assert not [name for name in response.headers if name.startswith("access-control-")]
        assert method != "OPTIONS" or response.status_code in (403, 405)


@pytest.mark.parametrize("method", ["TRACE", "OPTIONS", "PUT", "CONNECT", "X"])
def test_other_methods_do_nothing_and_echo_nothing(signed_in, method):
    for path in ("/", SESSION, JOBS, "/static/app.js"):
        response = signed_in.request(method, path, headers=OURS | {"X-Secret": "echo"})
        assert response.status_code == 405 and "echo" not in response.text


def test_a_websocket_is_refused_before_any_endpoint(client):
    from starlette.websockets import WebSocketDisconnect

    with (
        pytest.raises(WebSocketDisconnect) as refused,
        client.websocket_connect(SESSION, headers=BEARER),
    ):
        pass
    assert refused.value.code == 1008


def chunked(size):
    yield b'{"token": "'
    for _ in range(size // 100):
        yield b"x" * 100
    yield b'"}'


def test_a_body_above_the_limit_is_refused_with_and_without_its_length(client):
    headers = JSON | BEARER
    for content in (b'{"token": "' + b"x" * 1000 + b'"}', chunked(1100), chunked(1_000_000)):
        response = client.post(SESSION, content=content, headers=headers)
        assert code_of(response) == (413, "too_large")
    assert code_of(client.post(SESSION, content=chunked(100), headers=JSON)) == (
        401,
        "not_signed_in",
    )
    image = headers | {"Content-Type": "image/png"}
    upload = "/api/v1/predictions?model=none"
    assert code_of(client.post(upload, content=b"x" * 4001, headers=image)) == (413, "too_large")
    assert code_of(client.post(upload, content=chunked(4000), headers=image)) == (413, "too_large")
    assert code_of(client.post(upload, content=b"x" * 2000, headers=image))[0] != 413


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        ("1001", (413, "too_large")),
        ("9" * 5000, (413, "too_large")),
        ("-1", (400, "bad_input")),
        ("1e3", (400, "bad_input")),
        ("", (400, "bad_input")),
        ("²", (400, "bad_input")),
    ],
)
def test_a_wrong_length_is_refused(client, length, expected):
    headers = JSON | BEARER | {"Content-Length": length.encode()}
    assert code_of(client.post(SESSION, content=b"{}", headers=headers)) == expected


def test_deeply_nested_json_is_no_defect(client):
    for body in (b"[" * 900, b'{"token":' * 100, b'{"token": ' + b"1" * 900 + b"}", b"\xff\xfe"):
        status, _ = code_of(client.post(SESSION, content=body, headers=JSON))
        assert status in (400, 422)


def test_event_streams_above_the_limit_are_refused(app):
    import anyio

    async def status_of(leave):
        """Open a stream and return its status; it stays open until `leave` is set."""
        status = []
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "GET",
            "path": "/api/v1/events",
            "raw_path": b"/api/v1/events",
            "query_string": b"",
            "headers": [(b"host", HOST.encode()), (b"authorization", f"Bearer {TOKEN}".encode())],
        }

        async def receive():
            await leave.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            if message["type"] == "http.response.start":
                status.append(message["status"])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(app, scope, receive, send)
            while not status:
                await anyio.sleep(0.01)
            answered.append(status[0])
            if len(answered) == 3:
                leave.set()

    answered = []

    async def open_three():
        leave = anyio.Event()
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(status_of, leave)

    anyio.run(open_three)
    assert sorted(answered) == [200, 200, 429]
    answered.clear()
    anyio.run(open_three)
    assert sorted(answered) == [200, 200, 429], "closed streams count no longer"


@pytest.mark.parametrize(
    "path", ["/", "/runs/x", "/api/docs", "/static/app.js", SESSION, "/api/none"]
)
def test_every_answer_has_the_policy_and_is_not_guessed_framed_or_stored(signed_in, path):
    response = signed_in.get(path)
    policy = dict(
        part.split(" ", 1) for part in response.headers["content-security-policy"].split("; ")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
    assert "unsafe" not in response.headers["content-security-policy"]
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["x-frame-options"] == "DENY"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["cross-origin-opener-policy"] == "same-origin"
    assert response.headers["cross-origin-resource-policy"] == "same-origin"
    if path.startswith("/api/v1"):
        assert response.headers["cache-control"] == "no-store"


def test_refusals_have_the_policy_as_well(client):
    for response in (client.get(SESSION), client.get("/", headers={"Host": "evil.example"})):
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert response.headers["content-type"] == Problem(401, "x", "y").response().media_type
