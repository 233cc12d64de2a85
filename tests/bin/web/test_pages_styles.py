"""Style sheets of the pages: readable colors in both schemes, and nothing that no page uses."""

import re
from itertools import product

import pytest

from visionloop.bin.reports.page import HERE
from visionloop.bin.web.app import STATIC

REPORT = (HERE / "report.css").read_text()
DARK = "@media (prefers-color-scheme: dark)"
TEXTS = ("text", "soft", "accent", "bad", "good", "wait")
BELOW_TEXT = ("back", "paper", "mark", "bad-back")
DRAWN = ("control", *(f"run-{i}" for i in range(8)), *(f"part-{i}" for i in range(6)))


def colors(text):
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", text))


def schemes():
    before, after = REPORT.split(DARK)
    light, dark = colors(before), colors(after.split("\n}\n")[0])
    assert set(light) == set(dark)
    return {"light": light, "dark": dark}


def luminance(color):
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    """Return the contrast ratio of WCAG 2.2, 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_have_a_contrast_of_4_5_and_drawings_of_3(scheme):
    named = schemes()[scheme]
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    for text, below in product(TEXTS, BELOW_TEXT):
        assert contrast(named[text], named[below]) >= 4.5, (text, below)
    for below in ("accent", "good", "wait", "bad"):
        assert contrast(named["on"], named[below]) >= 4.5, below
    for drawn in DRAWN:
        assert contrast(named[drawn], named["paper"]) >= 3, drawn


def scripts():
    paths = [
        *HERE.glob("*.js"),
        *HERE.glob("*.html"),
        *STATIC.rglob("*.js"),
        *STATIC.glob("*.html"),
    ]
    return "\n".join(path.read_text() for path in paths)


def test_every_class_of_the_style_sheets_is_used():
    code = scripts()
    starts = tuple(re.findall(r"([\w-]+-)\$\{", code))  # of names that a script puts together
    for path in (HERE / "report.css", *(STATIC / "css").glob("*.css")):
        rules = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)
        selectors = re.sub(r"\{[^{}]*\}", "{}", rules)
        for name in sorted(set(re.findall(r"\.([a-z][\w-]*)", selectors))):
            is_used = re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", code)
            assert is_used or name.startswith(starts), (path.name, name)
