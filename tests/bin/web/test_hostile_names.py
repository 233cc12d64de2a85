"""Names from folders, files, classes and notes are shown as text on every page."""

import json
from contextlib import suppress

import pytest
from playwright.sync_api import expect
from report_runs import change, copy_run, last_record
from studio_server import browser_page, studio_server, wait_until_drawn

from visionloop.datasets.synthetic.writers import WRITERS

pytestmark = [pytest.mark.browser, pytest.mark.slow]
IMAGE = '<img src=x onerror="window.hacked=1">'
NAMES = (
    IMAGE,
    "<script>hacked=1<",  # no slash: it is the name of a folder
    "%2e%2e%2f..%2fetc",
    "two\nlines",
    "x" * 255,
    "🦊 여우",
    "'\"&lt;b&gt;${hacked=1}",
)


# whether a text is on the page, or in a field of it
SHOWS = """text => document.querySelector("main").innerText.includes(text)
    || [...document.querySelectorAll("textarea, input")].some(field => field.value === text)"""


@pytest.fixture(scope="module")
def studio(trained_run, tmp_path_factory):
    """A server with a run and a data set for each name, and the names in every text of a run."""
    folder = tmp_path_factory.mktemp("studio")
    for name in NAMES:
        (folder / "runs").mkdir(exist_ok=True)
        run = copy_run(trained_run, folder / "runs" / name)
        change(last_record(run), rename)
        change(run / "settings.json", lambda file: set_texts(file["settings"]))
        change(run / "status.json", lambda status: status.update(state="failed", error=ERROR))
        data = folder / "data" / name
        data.mkdir(parents=True)
        WRITERS["classification"](data, 0, images={"train": 4, "val": 2})
        classes = sorted((data / "train").iterdir())
        for split in ("train", "val"):
            (data / split / classes[0].name).rename(data / split / name)
    with studio_server(folder) as server:
        with suppress(TimeoutError):
            server.get("/metrics")  # reads them with torch, which takes long on a busy machine
        for row in server.get("/runs")["runs"]:
            text = f"note {IMAGE}"
            server.call("PATCH", f"/runs/{row['id']}", {"note": text})
        yield server


ERROR = {
    "code": "bad_input",
    "file": IMAGE,
    "field": IMAGE,
    "hint": f"hint {IMAGE}",
    "message": f"message {IMAGE}",
}


def rename(record):
    """Put the names into the classes and samples of a record."""
    for place, name in zip(record["classes"]["rows"], NAMES, strict=False):
        place["name"] = name
    classes = record["confusion"]["classes"]
    classes[:] = [*NAMES, *NAMES][: len(classes)]
    for group in ("fixed", "worst"):
        for sample, name in zip(record.get(group) or [], NAMES, strict=False):
            sample["name"] = name


def set_texts(settings):
    for name in ("model", "data", "preset"):
        settings[name]["value"] = f"{name} {IMAGE}"


def visit(studio, page, path):
    """Open a page and wait until it asks for nothing more."""
    page.goto(f"{studio.url}{path}")
    wait_until_drawn(page)
    page.wait_for_timeout(700)  # draws that follow the first one


def check_text_only(page, path):
    assert page.evaluate("window.hacked") is None, path
    assert page.locator("[onerror]").count() == 0, path
    assert page.locator('img[src="x"], img[src$="/x"]').count() == 0, path
    assert page.locator("main script").count() == 0, path


@pytest.mark.parametrize(("width", "language"), [(1280, "en"), (380, "ko")])
def test_hostile_names_are_text_on_all_pages(studio, width, language):
    ids = {row["path"].split("/runs/", 1)[1]: row["id"] for row in studio.get("/runs")["runs"]}
    assert set(ids) == set(NAMES)
    both = ",".join(list(ids.values())[:3])
    lists = [
        "/",
        "/new",
        "/models",
        "/data",
        f"/compare?runs={both}",
        "/try",
        f"/try?model={IMAGE}",
    ]
    with browser_page(studio, width=width, language=language) as page:
        page.on("dialog", lambda dialog: pytest.fail(dialog.message))
        for path in [*lists, *(f"/runs/{id}" for id in ids.values())]:
            visit(studio, page, path)
            check_text_only(page, path)
        visit(studio, page, "/")
        expect(page.locator("main")).to_contain_text(IMAGE)
        visit(studio, page, f"/runs/{ids[IMAGE]}")
        for text in (IMAGE, f"message {IMAGE}", f"note {IMAGE}"):
            page.wait_for_function(SHOWS, arg=text)
        visit(studio, page, "/data")
        expect(page.locator("main")).to_contain_text(IMAGE)


def test_hostile_names_pass_through_the_api_unchanged(studio):
    rows = studio.get("/runs")["runs"]
    assert {row["path"].split("/runs/", 1)[1] for row in rows} == set(NAMES)
    found = {row["path"].rsplit("/data/", 1)[1] for row in studio.get("/datasets")["datasets"]}
    assert found == set(NAMES)
    for row in rows:
        report = studio.get(f"/runs/{row['id']}/report")
        assert IMAGE in json.dumps(report, ensure_ascii=False).replace('\\"', '"')
    assert all("\nERROR" not in line for line in studio.output)
