"""The whole story of a newcomer, with the page alone: from the link to a model that predicts."""

import re
import shlex
import subprocess
import sys
import zipfile

import pytest
from playwright.sync_api import expect
from studio_server import browser_page, studio_server
from torchrun_runs import ENVIRONMENT

from visionloop.bin.web.jobs.spec import python_command
from visionloop.datasets.synthetic.writers import WRITERS
from visionloop.engine.errors import STOPPED

pytestmark = [pytest.mark.browser, pytest.mark.slow]
# of a task of each kind of answer: steps, and steps between two evaluations: some seconds of
# training for a stop in the middle
LENGTHS = {
    "classification": (600, 40),
    "detection": (60, 10),
    "panoptic_segmentation": (60, 20),
    "super_resolution": (100, 20),
}
WAIT_MS = 120_000  # for a process that imports PyTorch, on a busy machine
# loads the folder with the class that its config.json names
LOAD = """
import json, sys, transformers
(name,) = json.load(open(sys.argv[1] + "/config.json"))["architectures"]
model, report = getattr(transformers, name).from_pretrained(sys.argv[1], output_loading_info=True)
assert not any(report.values()), report
print(sum(weight.numel() for weight in model.parameters()))
"""


@pytest.fixture(name="studio", params=list(LENGTHS))
def studio_fixture(request, tmp_path):
    data = tmp_path / "data" / "sample"
    data.mkdir(parents=True)
    WRITERS[request.param](data, 0, images={"train": 8, "val": 4})
    with studio_server(tmp_path) as studio:
        studio.task = request.param
        yield studio


def test_a_newcomer_trains_stops_resumes_downloads_and_tries_a_model(studio, tmp_path):
    with browser_page(studio, is_signed_in=False) as page:
        page.goto(studio.link)
        page.get_by_role("link", name="New training").last.click()
        choose_task_and_data(page, studio.task)
        choose_model(page)
        command = change_settings(page, *LENGTHS[studio.task])
        page.get_by_role("button", name="Start training").click()
        watch_scores_arrive(page, studio)
        stop_and_resume(page)
        assert page.evaluate("window.isSame")  # not reloaded
        folder = download(page, tmp_path)
        try_an_image(page, studio)

    job = studio.get("/jobs")["jobs"][0]
    assert job["command"] == command
    assert (job["state"], job["attempt"]) == ("finished", 2)
    words = [sys.executable, "-c", LOAD, str(folder)]
    assert int(subprocess.run(words, check=True, capture_output=True, text=True).stdout) > 0


def choose_task_and_data(page, task):
    """Go through the first two steps; the check of the data shows its result and its sheet."""
    page.locator(f'.choice:has([src$="/example-{task}.svg"])').click()
    page.get_by_label("sample").check()
    page.get_by_role("button", name="Check the data").click()
    page.locator(".check-result .good").wait_for(timeout=WAIT_MS)
    sheet = page.locator(".sheet-image")
    sheet.scroll_into_view_if_needed()
    page.wait_for_function("document.querySelector('.sheet-image').naturalWidth > 0")
    page.get_by_role("button", name="Go on to the model").click()


def choose_model(page):
    page.locator('input[name="model"][value="tiny"]').check()
    page.get_by_role("button", name="Go on to the settings").click()
    page.locator(".setting").first.wait_for()


def change_settings(page, steps, every):
    """Give settings, those of closed groups included; returns the words of the command."""
    values = {
        "steps": steps,
        "batch_size": 4,
        "eval_every": every,
        "log_every": 2,
        "threads": 1,
        "workers": 0,
        "precision": "fp32",
    }
    closed = page.locator("details.group:not([open]) > summary")
    for left in reversed(range(closed.count())):
        closed.first.press("Enter")
        expect(closed).to_have_count(left)
    for name, value in values.items():
        field = page.locator(f"[data-setting={name}]")
        if field.evaluate("(input) => input.tagName") == "SELECT":
            field.select_option(str(value))
        else:
            field.fill(str(value))
    shown = page.locator(".command-bar pre").first
    for name, value in values.items():
        expect(shown).to_contain_text(f"--{name.replace('_', '-')} {value}")
    return shlex.split(shown.inner_text())


def watch_scores_arrive(page, studio):
    """See the page of the run, its first score, and more points without a reload."""
    page.wait_for_url(re.compile(r"/runs/\w+\?job=\w+$"))
    page.evaluate("window.isSame = true")
    page.locator("#scores .chart").first.wait_for(timeout=WAIT_MS)
    assert page.url == f"{studio.url}/runs/{studio.get('/jobs')['jobs'][0]['run_id']}"
    best = page.locator(".tile", has_text="Best score").locator("strong")
    expect(best).to_have_text(re.compile(r"\d"))
    points = "document.querySelector('#losses .chart svg').innerHTML.length"
    page.wait_for_function(f"(before) => {points} > before", arg=page.evaluate(points))


def stop_and_resume(page, first=None):
    """Stop, resume and finish a run. first: its process, where it is not a job's."""
    state = page.locator(".run-head .state")
    page.get_by_role("button", name="Stop").click()
    expect(state).to_have_text("stopped", timeout=WAIT_MS)
    expect(page.locator(".run-head .progress")).not_to_contain_text("100 %")
    assert first is None or first.wait(WAIT_MS / 1000) == STOPPED
    page.get_by_role("button", name="Resume").click()
    expect(state).to_have_text("finished", timeout=WAIT_MS)


def download(page, folder):
    """Save the weights with the page; returns the folder that they are unpacked in."""
    with page.expect_download() as begun:
        page.get_by_role("link", name="Download the model").click()
    begun.value.save_as(folder / "best.zip")
    with zipfile.ZipFile(folder / "best.zip") as file:
        file.extractall(folder / "unpacked")
    (config,) = (folder / "unpacked").rglob("config.json")
    return config.parent


def try_an_image(page, studio):
    """Follow the link to the page that tries this model; its prediction is drawn."""
    images = sorted(
        path
        for path in (studio.data / "sample").rglob("*val*/**/*")
        if path.suffix in (".png", ".jpg")
    )
    page.get_by_role("link", name="Try it").last.click()
    page.locator("input[type=file]").set_input_files(images[0])
    page.locator(".try-answer").wait_for(timeout=WAIT_MS)
    expect(page.locator(".try-answer")).to_contain_text(re.compile(r"\d"))


def test_a_run_of_the_command_line_is_watched_stopped_and_resumed_with_the_page(tmp_path):
    data = tmp_path / "data" / "sample"
    data.mkdir(parents=True)
    WRITERS["classification"](data, 0, images={"train": 8, "val": 4})
    values = "--model tiny --steps 300 --batch-size 4 --log-every 2 --eval-every 50 --save-every 50"
    machine = "--threads 1 --workers 0 --precision fp32 --device cpu"
    place = f"--data {data} --output {tmp_path / 'runs' / 'own'}"
    command = python_command("classification", "train", *f"{values} {machine} {place}".split())
    with studio_server(tmp_path) as studio, browser_page(studio) as page:
        page.locator(".empty").wait_for()
        process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
        try:
            card = page.locator(".job-card", has_text="own")
            card.wait_for(timeout=WAIT_MS)
            expect(page.locator(".device.busy")).to_have_text("cpu: own")
            card.get_by_role("link", name="own").click()
            stop_and_resume(page, first=process)
        finally:
            process.kill()
            process.wait()
        expect(page.locator("#log .log")).to_contain_text("classification")
