"""Scores in columns."""

import math
from types import SimpleNamespace

from visionloop.bin.commands.evaluate import score_table
from visionloop.engine.logging.console import (
    MOST_CLASSES,
    class_markdown,
    class_table,
    display_width,
)
from visionloop.engine.metric import MetricSpec

SPEC = MetricSpec("mAP", "AP", "percent", True, "")
TASK = SimpleNamespace(metrics=(SPEC, MetricSpec("val_loss", "loss", "float", False, "")))


def test_a_score_that_does_not_exist_is_a_dash():
    lines = score_table(TASK, {"mAP": math.nan, "val_loss": 1.5}, {}, {}, 3)
    assert lines == ["3 images", "AP            -", "loss     1.5000"]
    assert class_table(
        SPEC, {"cat": {"AP": math.nan, "boxes": 0}, "dog": {"AP": 1.0, "boxes": 12}}
    ) == [
        "",
        "class        AP  boxes",
        "cat           -      0",
        "dog    100.00 %     12",
    ]


def test_many_classes_are_cut_and_counted():
    lines = class_table(SPEC, {f"class {i}": {"AP": 0.5} for i in range(MOST_CLASSES + 7)})
    assert len(lines) == 2 + MOST_CLASSES + 1 and lines[-2].startswith(f"class {MOST_CLASSES - 1} ")
    assert lines[-1] == "and 7 classes more: `evaluate --output FILE.json` lists all"
    assert len(class_table(SPEC, {"one": {"AP": 0.5}})) == 3 and class_table(SPEC, {}) == []


def test_a_markdown_table_has_every_class():
    many = {"on|off": {"AP": 0.5, "boxes": 0}} | {
        f"class {i}": {"AP": 0.5, "boxes": i} for i in range(1, MOST_CLASSES + 7)
    }
    heading, rule, *rows = class_markdown(SPEC, many).splitlines()
    assert (heading, rule) == ("| class | AP | boxes |", "| --- | ---: | ---: |")
    assert (
        len(rows) == len(many)
        and rows[0] == "| on\\|off | 50.00 % | 0 |"
        and rows[-1] == "| class 106 | 50.00 % | 106 |"
    )


def test_columns_stand_below_each_other_for_names_of_any_script():
    rows = {name: {"AP": 0.5} for name in ("고양이 둘", "Ёж", "a b", "猫", "e\u0301")}
    widths = {display_width(line) for line in class_table(SPEC, rows)[1:]}
    assert len(widths) == 1 and [display_width(name) for name in rows] == [9, 2, 3, 2, 1]


def test_a_markdown_table_shows_names_as_they_are():
    row = class_markdown(SPEC, {"a|b_*<i>\nc": {"AP": 0.5}}).splitlines()
    assert len(row) == 3 and row[-1] == "| a\\|b\\_\\*\\<i\\> c | 50.00 % |"
