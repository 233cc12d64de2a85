"""The HTML page of a report: no text of the data becomes HTML, nothing is requested."""

import re
import shutil
import subprocess

import pytest
from report_runs import change, copy_run, object_reader, scripts_of, tags_of

from visionloop.bin import report as launcher
from visionloop.bin.reports.page import HERE, SCRIPTS

commands = launcher.command  # of the fixture `command`
HOSTILE = (
    "</script><script>document.title='taken'</script><img src=x onerror=alert(1)> "
    "& \u2028 {{style}} 고양이"
)
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture
def run(trained_run, tmp_path):
    return copy_run(trained_run, tmp_path / "run")


@pytest.fixture
def object_of(command, tmp_path):
    return object_reader(command, tmp_path)


def hostile(run):
    """The same run with a hostile text in every field that a user or a dataset fills."""

    def edit(record):
        record["fixed"][0]["name"] = record["worst"][0]["name"] = HOSTILE
        record["classes"]["rows"][0]["name"] = record["confusion"]["classes"][0] = HOSTILE
        record["reference"][HOSTILE] = 0.5
        record["curves"] = [
            {
                "title": HOSTILE,
                "x": HOSTILE,
                "y": HOSTILE,
                "lines": [{"name": HOSTILE, "x": [0, 1], "y": [0, 1]}],
            }
        ]

    for path in (run / "evaluations").glob("*/record.json"):
        change(path, edit)
    change(
        run / "settings.json",
        lambda content: content["settings"].update(
            {HOSTILE: {"value": HOSTILE, "source": HOSTILE}}
        ),
    )
    change(
        run / "environment.json",
        lambda content: content.update({"command": [HOSTILE], HOSTILE: HOSTILE}),
    )
    change(
        run / "status.json",
        lambda content: content.update(state="failed", error={"message": HOSTILE}),
    )
    return run


def test_texts_of_the_object_never_become_html(command, object_of, run, tmp_path):
    assert command(run, "--output", tmp_path / "plain.html")[0] == 0
    plain = tags_of((tmp_path / "plain.html").read_text())
    object_of(hostile(run))  # reads back as it was, {{style}} too
    assert command(run, "--output", tmp_path / "hostile.html")[0] == 0
    page = (tmp_path / "hostile.html").read_bytes()
    assert tags_of(page.decode("ascii")) == plain
    assert not set(scripts_of(page.decode())[0]) & set("<>&\u2028\u2029")


def test_a_page_requests_nothing_from_outside(command, run):
    assert command(run)[0] == 0
    page = (run / "report.html").read_text()
    tags = tags_of(page)
    policy = next(
        attributes["content"]
        for tag, attributes in tags
        if "Content-Security-Policy" in attributes.values()
    )
    assert (
        policy.split("; ")[0] == "default-src 'none'"
        and "img-src data:;" in policy
        and "connect-src" not in policy
    )
    addresses = [
        attributes[name] for _, attributes in tags for name in ("src", "href") if name in attributes
    ]
    assert addresses == ["data:,"]  # no icon: a browser would ask for one
    assert re.findall(r"https?://[^\"'\s]+", scripts_of(page)[1]) == ["http://www.w3.org/2000/svg"]
    style = re.search("<style>(.*)</style>", page, re.DOTALL)[1]
    assert "url(" not in style and "@import" not in style


def test_the_script_never_reads_texts_as_html():
    for name in SCRIPTS:
        text = (HERE / name).read_text()
        unsafe = (
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function"
            r"|</script"
        )
        assert not re.search(unsafe, text), name


@pytest.mark.skipif(BROWSER is None, reason="no chromium: the page's script is not run")
def test_a_browser_draws_every_part_and_shows_hostile_texts_as_text(command, run, tmp_path):
    other = shutil.copytree(run, tmp_path / "other")
    assert command(hostile(run), other, "--output", tmp_path / "page.html")[0] == 0
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--virtual-time-budget=5000",
    ]
    flags += ["--enable-logging=stderr", "--dump-dom"]
    process = subprocess.run(
        [BROWSER, *flags, (tmp_path / "page.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "CONSOLE" not in process.stderr
    tags = tags_of(process.stdout)
    parts = [attributes["id"] for tag, attributes in tags if tag == "section"]
    charts, tables = (
        ["scores", "losses", "speed", "curves"],
        ["classes", "confusion", "samples", "worst", "time_breakdown"],
    )
    assert parts == [*charts, *tables, "settings", "environment", "repeat", "missing"]
    assert [tag for tag, _ in tags].count("script") == 2 and "taken" not in re.search(
        "<title>(.*?)</title>", process.stdout
    )[1]
    images = [attributes for tag, attributes in tags if tag == "img"]
    assert len(images) == 24 and all(
        image["src"].startswith("data:image/jpeg;base64,") for image in images
    )
    assert any(image["alt"] == HOSTILE for image in images)
    assert [tag for tag, _ in tags].count("path") >= 10  # lines of charts
