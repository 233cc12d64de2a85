"""Scores in columns."""

import math
from types import SimpleNamespace

from visionloop.bin.commands.tables import MOST_CLASSES, class_table, score_table
from visionloop.engine.metric import MetricSpec

TASK = SimpleNamespace(metrics=(MetricSpec("mAP", "AP", "percent", True, ""), MetricSpec("val_loss", "loss", "float", False, "")))


def test_a_score_that_does_not_exist_is_a_dash():
    lines = score_table(TASK, {"mAP": math.nan, "val_loss": 1.5}, {}, {}, 3)
    assert lines == ["3 pictures", "AP            -", "loss     1.5000"]
    assert class_table(TASK, {"cat": {"AP": math.nan, "boxes": 0}, "dog": {"AP": 1.0, "boxes": 12}}) == [
        "",
        "class        AP  boxes",
        "cat           -      0",
        "dog    100.00 %     12",
    ]


def test_many_classes_are_cut_and_counted():
    lines = class_table(TASK, {f"class {i}": {"AP": 0.5} for i in range(MOST_CLASSES + 7)})
    assert len(lines) == 2 + MOST_CLASSES + 1 and lines[-2].startswith(f"class {MOST_CLASSES - 1} ")
    assert lines[-1] == "and 7 classes more: all of them with --output"
    assert len(class_table(TASK, {"one": {"AP": 0.5}})) == 3 and class_table(TASK, {}) == []
