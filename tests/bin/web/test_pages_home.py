"""Home: runs, the queue and failures, live."""

import re
import shutil

import pytest
from live_runs import beat, live_run
from playwright.sync_api import expect
from report_runs import change, copy_run
from studio_server import browser_page, studio_server

pytestmark = [pytest.mark.browser, pytest.mark.slow]
HOSTILE = "<img src=x onerror=document.title='taken'> & {name} 고양이"
SMALL = {
    "model": "tiny",
    "from_scratch": True,
    "steps": 10,
    "threads": 1,
    "workers": 0,
    "device": "cpu",
    "batch_size": 4,
    "precision": "fp32",
}


@pytest.fixture
def studio(trained_run, tmp_path):
    shutil.copytree(trained_run.parent / "data", tmp_path / "data" / "shapes")
    with studio_server(tmp_path) as server:
        yield server


def queue_job(studio, name, *, start=False, **settings):
    """A job that waits until it is resumed, unless `start`."""
    settings = {"data": str(studio.data / "shapes"), **SMALL, **settings}
    body = {"task": "classification", "settings": settings, "name": name, "start": start}
    return studio.post("/jobs", body)["id"]


def wait_for(page, part, names):
    page.wait_for_function(
        "([part, names]) => JSON.stringify([...document.querySelectorAll(`#${part} .name`)]"
        ".map((one) => one.textContent)) === JSON.stringify(names)",
        arg=[part, names],
    )


def test_an_empty_studio_leads_to_a_new_training(studio):
    with browser_page(studio) as page:
        page.get_by_text("No training yet").wait_for()
        expect(page.locator(".empty a.primary")).to_have_attribute("href", "/new")


def test_runs_are_found_by_search_and_selected_to_compare(studio, trained_run):
    for name in ("roses", "tulips", "lilies"):
        copy_run(trained_run, studio.runs / name)
    with browser_page(studio) as page:
        page.locator("#runs tbody tr").nth(2).wait_for()
        page.get_by_label("Search by name").fill("ROS")
        wait_for(page, "runs", ["roses"])
        page.get_by_label("Search by name").fill("")
        page.get_by_label("All states").select_option("failed")
        page.get_by_text("No run fits the search").wait_for()
        page.get_by_label("All states").select_option("")
        page.get_by_label("Select roses to compare").check()
        compare = page.locator(".chosen a")
        expect(page.locator(".chosen > span")).to_have_text(re.compile(r"^1\b"))
        assert compare.get_attribute("href") is None
        page.get_by_label("Select tulips to compare").check()
        ids = {run["name"]: run["id"] for run in studio.get("/runs")["runs"]}
        both = f"/compare?runs={ids['roses']},{ids['tulips']}"
        expect(compare).to_have_attribute("href", both)


def test_the_order_of_the_queue_is_changed_with_the_keyboard(studio):
    first, second = queue_job(studio, "first"), queue_job(studio, "second")
    with browser_page(studio) as page:
        wait_for(page, "queue", ["first", "second"])
        page.get_by_label("Move first down").press("Enter")
        wait_for(page, "queue", ["second", "first"])
        waiting = [job["id"] for job in studio.get("/jobs")["jobs"]]
        assert waiting == [second, first]
        page.get_by_label("Move first up").press("Enter")
        wait_for(page, "queue", ["first", "second"])


def test_a_job_of_another_window_appears_and_goes_without_a_reload(studio):
    with browser_page(studio) as page:
        page.get_by_text("No training yet").wait_for()
        page.evaluate("window.isSame = true")
        job = queue_job(studio, HOSTILE)
        wait_for(page, "queue", [HOSTILE])
        assert page.title() != "taken" and not page.locator("main img").count()
        studio.call("DELETE", f"/jobs/{job}")
        page.get_by_text("No training yet").wait_for()
        assert page.evaluate("window.isSame")


def test_removing_a_job_asks_first(studio):
    queue_job(studio, "one")
    with browser_page(studio) as page:
        page.get_by_role("button", name="Remove").click()
        page.get_by_role("button", name="Cancel").click()
        assert len(studio.get("/jobs")["jobs"]) == 1
        page.get_by_role("button", name="Remove").click()
        page.locator("dialog").get_by_role("button", name="Remove").click()
        page.get_by_text("No training yet").wait_for()
        assert studio.get("/jobs")["jobs"] == []


def test_a_failed_job_shows_its_reason_and_starts_again_with_its_settings(studio):
    (studio.data / "empty").mkdir()
    job = queue_job(studio, "wrong", start=True, data=str(studio.data / "empty"))
    with browser_page(studio) as page:
        wait_for(page, "failed", ["wrong"])
        reason = studio.get(f"/jobs/{job}")["error"]["message"]
        part = page.locator("#failed")
        expect(part.locator(".error")).to_contain_text(reason)
        again = part.get_by_role("link", name="Start again")
        expect(again).to_have_attribute("href", f"/new?job={job}")


def test_a_running_training_moves_on_in_place(studio, trained_run):
    run = live_run(trained_run, studio.runs / "alive")
    with browser_page(studio) as page:
        card = page.locator("#live .job-card")
        card.get_by_text("6 / 1,000").wait_for()
        card.evaluate("(element) => (element.isSame = true)")
        beat(run, step=500)
        card.get_by_text("500 / 1,000").wait_for()
        assert card.evaluate("(element) => element.isSame === true")
        expect(card.locator("progress")).to_have_js_property("max", 1000)
        expect(card.locator("progress")).to_have_js_property("value", 500)
        change(run / "status.json", lambda status: status.update(state="finished", step=1000))
        card.wait_for(state="hidden")


@pytest.mark.parametrize(("width", "language", "dark"), [(380, "ko", True), (1280, "en", False)])
def test_no_part_is_wider_than_the_window(studio, trained_run, width, language, dark):
    live_run(trained_run, studio.runs / ("a-name-without-an-end-" * 8))
    queue_job(studio, "x" * 190)
    with browser_page(studio, width=width, language=language, dark=dark) as page:
        page.locator("#live .job-card").wait_for()
        page.locator("#queue li").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
