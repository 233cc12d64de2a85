"""A studio server in a process of its own, and a browser that looks at it.

with studio_server(tmp_path) as studio:
    studio.get("/runs")
    with browser_page(studio) as page:
        page.goto(studio.url + "/")
"""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
SECONDS = 120  # a machine may be busy with other tests
LINK = re.compile(r"Open (https?://\S+?)/#token=(\S+)")


class ApiProblem(Exception):
    """An answer with an error: its status and its problem object."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(f"{status}: {body}")
        self.status, self.body = status, body


@dataclass
class StudioServer:
    """A server that runs; paths of calls are those below /api/v1."""

    url: str
    token: str
    process: subprocess.Popen[str]
    data: Path
    runs: Path
    state: Path
    output: list[str] = field(default_factory=list)

    @property
    def link(self) -> str:
        """The link that signs a browser in."""
        return f"{self.url}/#token={self.token}"

    def request(self, method: str, path: str, body: object = None) -> bytes:
        """Return the bytes of an answer. `body`: bytes as an image, anything else as JSON."""
        headers = {"Authorization": f"Bearer {self.token}", "X-Visionloop": "1"}
        content = body if isinstance(body, bytes) else None
        if content is not None:
            headers["Content-Type"] = "image/png"
        elif body is not None:
            content = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(
            f"{self.url}/api/v1{path}", data=content, headers=headers, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as response:
                answer: bytes = response.read()
        except urllib.error.HTTPError as error:
            raise ApiProblem(error.code, json.loads(error.read() or b"{}")) from None
        return answer

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Return the JSON of an answer. Raises ApiProblem for an error."""
        return json.loads(self.request(method, path, body) or b"null")

    def get(self, path: str) -> Any:
        return self.call("GET", path)

    def post(self, path: str, body: object = None) -> Any:
        return self.call("POST", path, {} if body is None else body)

    def stop(self) -> str:
        """End the server as Ctrl-C does, and return what it has printed."""
        self.process.terminate()
        self.process.wait(SECONDS)
        return "".join(self.output)


@contextmanager
def studio_server(
    folder: Path,
    *options: str,
    data: Path | None = None,
    runs: Path | None = None,
    environment: dict[str, str] | None = None,
) -> Iterator[StudioServer]:
    """Start a server on a free port; its state, and by default its data and runs, are in `folder`.

    Args:
        folder: of the test; a second server with the same folder finds the first one's jobs.
        options: further words of the command line.
        data, runs: other roots.
        environment: variables beside those of this process.
    """
    data, runs, state = data or folder / "data", runs or folder / "runs", folder / "state"
    for path in (data, runs):
        path.mkdir(parents=True, exist_ok=True)
    roots = ("--data", str(data), "--runs", str(runs), "--state", str(state))
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "bin" / "studio.py"), *roots, "--port", "0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **(environment or {})},
    )
    output: list[str] = []
    try:
        assert process.stdout is not None
        while not (match := LINK.search("".join(output))):
            line = process.stdout.readline()
            assert line, f"the server ended: {''.join(output)}"
            output.append(line)
        # a full pipe would stop the server
        threading.Thread(target=output.extend, args=(process.stdout,), daemon=True).start()
        yield StudioServer(match[1], match[2], process, data, runs, state, output)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def browser_page(
    studio: StudioServer,
    *,
    width: int = 1280,
    height: int = 900,
    dark: bool = False,
    language: str = "en",
    is_signed_in: bool = True,
    expected_errors: str | None = None,
    flags: tuple[str, ...] = (),
) -> Iterator[Any]:
    """Open a page of Chromium that is signed in.

    At the end, fails for errors in the console, errors of scripts and requests to another host.

    Args:
        expected_errors: pattern of lines in the console that belong to the test, such as the
            browser's own line for an answer 404.
        flags: further words of Chromium's command line.
    """
    if CHROMIUM is None:
        pytest.skip("no chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *flags])
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            locale=language,
        )
        page = context.new_page()
        page.set_default_timeout(1000 * SECONDS)
        playwright.expect.set_options(timeout=1000 * SECONDS)  # of its own, 5 seconds by default
        errors, hosts = [], set()
        page.on(
            "console",
            lambda message: message.type in ("error", "warning") and errors.append(message.text),
        )
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
        try:
            if is_signed_in:
                page.goto(studio.link)
                page.locator(".topbar nav a").first.wait_for()
            yield page
        finally:
            browser.close()
        unexpected = [
            text for text in errors if not (expected_errors and re.search(expected_errors, text))
        ]
        assert not unexpected, unexpected
        assert hosts <= {urlsplit(studio.url).netloc, ""}, hosts


def wait_until_drawn(page: Any) -> None:
    """Wait until a page has fetched its content and drawn it."""
    page.locator("main .view h1").first.wait_for()
    page.locator("main[aria-busy]").wait_for(state="detached")
