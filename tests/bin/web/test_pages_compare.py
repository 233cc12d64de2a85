"""The comparison of runs, and the page about the API."""

import re
import shutil

import pytest
from playwright.sync_api import expect
from report_runs import change, copy_run
from studio_server import browser_page, studio_server

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture
def studio(trained_run, tmp_path):
    for name in ("first", "second"):
        shutil.copytree(trained_run, tmp_path / "runs" / name)
    change(
        tmp_path / "runs" / "second" / "settings.json",
        lambda content: content["settings"]["lr"].update(value=0.5, source="flag"),
    )
    with studio_server(tmp_path, data=trained_run.parent / "data") as server:
        yield server


def address_of(studio, *names):
    ids = {run["name"]: run["id"] for run in studio.get("/runs")["runs"]}
    return f"{studio.url}/compare?runs={','.join(ids[name] for name in names)}"


def test_two_runs_share_the_charts_and_settings_that_differ_come_first(studio):
    with browser_page(studio) as page:
        page.goto(address_of(studio, "first", "second"))
        lines = page.locator("#losses .chart path.line")
        expect(lines).to_have_count(2)
        first = page.locator("#settings details").first
        expect(first.locator("summary")).to_have_text(re.compile("^Different between runs"))
        rate = first.locator("tr", has_text="lr").last.locator("td").nth(1)
        expect(rate).to_have_text("0.5 flag", use_inner_text=True)
        page.get_by_role("group", name="charts").get_by_role("button", name="second").click()
        expect(lines).to_have_count(1)


def test_the_axis_of_a_curve_is_the_step_or_the_time(studio):
    with browser_page(studio) as page:
        page.goto(address_of(studio, "first", "second"))
        # keys need a drawn curve
        page.locator("#losses .chart path.line").first.wait_for(state="attached")
        chart = page.locator("#losses .chart > svg")
        chart.focus()
        page.keyboard.press("ArrowRight")
        expect(page.locator("#losses .tip b")).to_have_text("step 1")
        page.get_by_label("over the time in training steps").check()
        chart.focus()
        page.keyboard.press("ArrowRight")
        expect(page.locator("#losses .tip b")).to_have_text(re.compile("^time "))


def test_equal_runs_have_no_difference_in_words_and_in_figures(studio):
    with browser_page(studio) as page:
        page.goto(address_of(studio, "first", "second"))
        page.get_by_role("button", name="Compute the difference").click()
        page.locator(".verdict").wait_for(timeout=300_000)
        job = next(job for job in studio.get("/jobs")["jobs"] if job["kind"] == "compare")
        result = studio.get(f"/jobs/{job['id']}/result")
        deciding = next(line for line in result["lines"] if line["metric"] == result["metric"])
        assert deciding["differences"][1]["difference"] == 0
        expect(page.locator(".verdict")).to_have_text(result["settings"][1]["verdict"]["en"])
        expect(page.locator(".comparison tbody tr")).to_have_count(len(result["lines"]))
        expect(page.locator("svg.interval")).to_have_count(1)


def test_one_run_is_no_comparison(studio):
    with browser_page(studio) as page:
        page.goto(address_of(studio, "first"))
        page.get_by_text("Select two to ten runs").wait_for()


def test_an_unknown_run_is_an_error_that_says_so(studio):
    with browser_page(studio, expected_errors="status of 404") as page:
        page.goto(f"{studio.url}/compare?runs={'0' * 16},{'1' * 16}")
        expect(page.get_by_role("alert")).to_contain_text("no such run")


def test_a_table_of_1000_classes_shows_the_first_ones_and_all_on_demand(studio, trained_run):
    many = [{"name": f"class {i}", "values": [10, i / 1000, None]} for i in range(1000)]
    run = copy_run(trained_run, studio.runs / "many")
    for path in (run / "evaluations").glob("*/record.json"):
        change(path, lambda record: record["classes"].update(rows=many))
    with browser_page(studio) as page:
        page.goto(f"{studio.url}/")
        page.get_by_role("link", name="many", exact=True).click()
        rows = page.locator("#classes tbody tr")
        expect(rows).to_have_count(200)
        page.locator("#classes thead button").nth(2).click()  # the highest score comes first
        expect(rows.first.locator("th")).to_have_text("class 999")
        page.get_by_role("button", name="show all 1,000 rows").click()
        expect(rows).to_have_count(1000)


def test_the_page_about_the_api_describes_every_endpoint(studio):
    with browser_page(studio) as page:
        api = page.evaluate("fetch('/api/openapi.json').then((answer) => answer.json())")
        page.get_by_role("link", name="API").click()
        page.locator(".endpoint").first.wait_for()  # all come at once
        shown = page.locator(".endpoint > summary > code").all_inner_texts()
        expected = [path for path, methods in api["paths"].items() for _ in methods]
        assert sorted(shown) == sorted(expected)
        page.get_by_label("Search the endpoints").fill("put a training")
        block = page.locator(".endpoint:visible")
        expect(block).to_have_count(1)
        block.locator("summary").click()
        for text in ("run_name", "-H 'X-Visionloop: 1'"):
            expect(block).to_contain_text(text, use_inner_text=True)
