"""The frame of the pages: signing in, the language, navigation, errors."""

import re

import pytest
from playwright.sync_api import expect
from studio_server import browser_page, studio_server, wait_until_drawn

pytestmark = [pytest.mark.browser, pytest.mark.slow]
NOT_THERE = "status of 40[14]|dynamically imported module"


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    with studio_server(tmp_path_factory.mktemp("studio")) as server:
        yield server


def test_the_token_of_the_link_is_exchanged_and_leaves_the_address(studio):
    with browser_page(studio, expected_errors=NOT_THERE) as page:
        assert page.url == f"{studio.url}/"
        page.goto(f"{studio.url}/")
        page.locator(".topbar nav a").first.wait_for()
        assert page.evaluate("document.cookie") == ""  # no script can read it


def test_a_browser_without_the_cookie_is_told_to_open_the_link(studio):
    with browser_page(studio, is_signed_in=False, expected_errors=NOT_THERE) as page:
        page.goto(f"{studio.url}/models")
        page.get_by_role("heading", name="Sign in").wait_for()
        expect(page.locator("main")).to_contain_text("#token=...")
        page.goto(f"{studio.url}/#token=wrong")
        page.get_by_role("heading", name="Sign in").wait_for()


def test_the_language_switch_changes_all_texts_and_is_kept(studio):
    with browser_page(studio, expected_errors=NOT_THERE) as page:
        expect(page.locator(".topbar nav a").first).to_have_text("Home")
        page.get_by_label("Language").select_option("ko")
        expect(page.locator(".topbar nav a").first).to_have_text("홈")
        page.reload()
        page.get_by_text("새 학습").first.wait_for()
        expect(page.locator("html")).to_have_attribute("lang", "ko")


def test_a_browser_in_korean_gets_korean(studio):
    with browser_page(studio, language="ko-KR", expected_errors=NOT_THERE) as page:
        expect(page.locator(".topbar nav a").first).to_have_text("홈")


def test_an_unknown_address_is_an_error_that_says_so(studio):
    with browser_page(studio, expected_errors=NOT_THERE) as page:
        page.goto(f"{studio.url}/nothing")
        expect(page.get_by_role("alert")).to_contain_text("/nothing: no such page")


def test_the_page_tells_that_the_server_is_gone(tmp_path):
    with (
        studio_server(tmp_path) as studio,
        browser_page(studio, expected_errors=f"{NOT_THERE}|ERR_|Failed to fetch") as page,
    ):
        studio.stop()
        page.evaluate("import('/static/api.js').then((api) => api.get('/runs')).catch(() => null)")
        page.get_by_text(re.compile("The server does not answer")).first.wait_for()


@pytest.mark.parametrize("width", [380, 1280, 3840])
def test_nothing_is_wider_than_the_window(studio, width):
    with browser_page(studio, width=width, expected_errors=NOT_THERE) as page:
        wait_until_drawn(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_server_imports_no_torch_for_its_pages(studio):
    maps = f"/proc/{studio.process.pid}/maps"
    with open(maps) as file:
        assert "libtorch" not in file.read()


def test_a_page_that_was_asked_for_while_the_server_was_gone_comes_with_it(tmp_path):
    with (
        studio_server(tmp_path) as studio,
        browser_page(studio, expected_errors=f"{NOT_THERE}|ERR_|Failed to fetch") as page,
    ):
        port = studio.url.rsplit(":", 1)[1]
        studio.stop()
        page.get_by_role("link", name="Models").click()
        page.get_by_role("alert").get_by_text(re.compile("Start bin/studio.py again")).wait_for()
        with studio_server(tmp_path, "--port", port):
            page.get_by_role("heading", name="Models").wait_for()
            page.get_by_role("alert").wait_for(state="detached")
