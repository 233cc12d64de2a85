"""Texts of the pages: each one in English and Korean, none missing."""

import re

import pytest
from studio_server import browser_page, studio_server

from visionloop.bin.model_zoo.listing import MODEL_ZOOS
from visionloop.bin.reports.page import HERE, MODULES
from visionloop.bin.web.app import STATIC

pytestmark = [pytest.mark.browser, pytest.mark.slow]
ALL_WORDS = """async (names) => {
  const found = {};
  for (const name of names) found[name] = (await import(`/static/words/${name}.js`)).default;
  return found;
}"""
LITERAL = re.compile(r'\bword\("([^"]+)"')
# say("text" + "text", values)
SAID = re.compile(r'\bsay\(\s*((?:"(?:[^"\\]|\\.)*"\s*\+?\s*)+)')


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """{name of a file: its texts}."""
    names = sorted(path.stem for path in (STATIC / "words").glob("*.js"))
    with (
        studio_server(tmp_path_factory.mktemp("studio")) as studio,
        browser_page(studio) as page,
    ):
        return page.evaluate(ALL_WORDS, names)


def slots(text):
    return sorted(re.findall(r"\{(\w+)\}", text))


def test_each_text_is_there_in_both_languages_with_the_same_values(words):
    pages = {name: texts for name, texts in words.items() if set(texts) == {"en", "ko"}}
    assert {"shell", "home", "run", "compare", "docs"} <= set(pages)
    for name, texts in pages.items():
        # the help of a setting is English from the command itself and has a Korean text alone
        assert set(texts["en"]) <= set(texts["ko"]), name
        for key, text in texts["en"].items():
            assert slots(text) == slots(texts["ko"][key]), (name, key)


def test_pages_know_the_tasks_of_the_model_zoo_and_every_one_has_its_texts(words):
    parts = (STATIC / "parts.js").read_text()
    listed = re.findall(r'"(\w+)"', re.search(r"TASKS = \[(.*?)\]", parts, re.DOTALL)[1])
    known = {key for texts in words.values() if "en" in texts for key in texts["en"]}
    assert listed == [zoo.command for zoo in MODEL_ZOOS]
    for zoo in MODEL_ZOOS:
        assert words["shell"]["ko"][f"task.{zoo.command}"] == zoo.label["ko"]
        kinds = ("task", "new.example", "new.about", "new.layout")
        assert {f"{kind}.{zoo.command}" for kind in kinds} <= known
        assert (STATIC / f"icons/example-{zoo.command}.svg").is_file()
        assert f"  {zoo.command}: " in (STATIC / "icons.js").read_text()


def test_no_page_names_a_text_that_is_missing(words):
    known = {key for texts in words.values() if "en" in texts for key in texts["en"]}
    for path in (*STATIC.glob("*.js"), *(STATIC / "pages").glob("*.js")):
        code = re.sub(r"^\s*//.*", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        missing = set(LITERAL.findall(code)) - known
        assert not missing, (path.name, missing)


def test_no_text_is_left_that_no_page_names(words):
    paths = (*STATIC.glob("*.js"), *(STATIC / "pages").glob("*.js"))
    code = "\n".join(path.read_text(encoding="utf-8") for path in paths)
    starts = tuple(re.findall(r"`([\w.]+\.)\$\{", code))  # of keys that a page puts together
    for name, texts in words.items():
        for key in texts.get("en", ()):
            assert f'"{key}"' in code or key.startswith(starts), (name, key)


def test_every_text_of_the_report_has_a_korean_one(words):
    korean, said = words["report"], set()
    for name in set(MODULES) - {"report"}:  # that one draws the page in a file alone
        for literal in SAID.findall((HERE / f"{name}.js").read_text()):
            said.add("".join(re.findall(r'"((?:[^"\\]|\\.)*)"', literal)))
    assert len(said) > 60 and said <= set(korean), said - set(korean)
    for text in korean:
        assert slots(text) == slots(korean[text]), text
