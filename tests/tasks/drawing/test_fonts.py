"""Class names of any script in images."""

import logging
import unicodedata

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from visionloop.tasks.drawing import fonts
from visionloop.tasks.drawing.canvas import class_label, text_on
from visionloop.tasks.drawing.fonts import drawn_letters, font_for, installed_fonts, load_fonts

KOREAN = "고양이 둘"
UNWRITABLE = "\U0010fffd"  # private: no font has an image of it


@pytest.fixture
def latin_alone(monkeypatch):
    """A machine whose only font is Pillow's own."""
    monkeypatch.setattr(fonts, "FONTS", ())
    monkeypatch.setenv("PATH", "")
    caches = (load_fonts, font_for, installed_fonts)
    for cached in caches:
        cached.cache_clear()
    monkeypatch.setattr(fonts, "_warned", [])
    yield
    for cached in caches:
        cached.cache_clear()


def test_letters_that_join_or_mark_others_need_no_glyph():
    assert drawn_letters("e\u0301 a\u200db\ufe0f") == {"e", "a", "b"}


def test_without_fonts_a_class_is_its_number_and_that_is_warned_of_once(latin_alone, caplog):
    with caplog.at_level(logging.WARNING):
        assert [class_label(i, ["a b", KOREAN, "猫"]) for i in range(3)] == ["a b", "#1", "#2"]
    (message,) = caplog.messages
    assert KOREAN in message and "#1" in message and "\n" not in message


def test_a_font_is_chosen_wherever_the_machine_has_one(monkeypatch):
    path, index = next(iter(installed_fonts("둘")), (None, None))
    if path is None:
        pytest.skip("no installed font has Korean letters")
    monkeypatch.setattr(fonts, "FONTS", ())
    load_fonts.cache_clear(), font_for.cache_clear()
    try:
        assert font_for(KOREAN, 12).path and class_label(0, [KOREAN]) == KOREAN
        assert ImageFont.truetype(path, 12, index=index).getlength("둘") > 0
    finally:
        load_fonts.cache_clear(), font_for.cache_clear()


def test_a_name_in_parts_is_the_same_name():
    composed = "é"
    assert class_label(0, [unicodedata.normalize("NFD", composed)]) == composed


def drawn(text):
    image = Image.new("RGB", (120, 20), (255, 255, 255))
    text_on(ImageDraw.Draw(image), (0, 2), text)
    return np.array(image)


@pytest.mark.parametrize("text", ["cat 1.jpg", UNWRITABLE, "\U0001f638"])
def test_text_is_drawn_with_the_only_font_there_is(latin_alone, text):
    assert (drawn(text) != 255).any()


def test_a_number_stays_behind_a_name_that_is_written_from_right_to_left():
    label = class_label(0, ["عربي"])
    if label.startswith("#"):
        pytest.skip("no font here has Arabic letters")
    alone, width = drawn(label), round(font_for(label, 12).getlength(label))
    assert (drawn(f"{label} 7.1 %")[:, : width - 1] == alone[:, : width - 1]).all()
