"""Score thresholds in config.json and on the model card."""

import json

import pytest
import torch
from transformers import PretrainedConfig

from visionloop.engine.errors import UserError
from visionloop.metrics.operating_point import OperatingPoint, ThresholdRule
from visionloop.tasks.operating_point import (
    KEY,
    ScoreThresholds,
    forget_operating_point,
    save_operating_point,
    thresholds_of,
)

NAN = float("nan")
POINTS = (
    OperatingPoint(0.40625, 0.9, 0.75, 0.818, 12),
    OperatingPoint(None, NAN, NAN, NAN, 0),
    OperatingPoint(None, NAN, NAN, NAN, 3),
)
CLASSES = ("cat", "dog", "cow")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "d_fine"}))
    (tmp_path / "README.md").write_text("# Detector\n\n## Scores\n\nmany\n\n## Use\n\ncode\n")
    return tmp_path


def test_thresholds_are_read_as_they_were_written_and_classes_without_keep_the_default(folder):
    rule = ThresholdRule.parse("precision=0.9")
    lines = save_operating_point(folder, POINTS, CLASSES, rule, 40)
    config = PretrainedConfig.from_pretrained(folder)
    found = thresholds_of(config, CLASSES, None, 0.01)
    assert found.values == (0.40625, 0.01, 0.01) and found.chosen == (True, False, False)
    assert "precision=0.9" in found.note and "0.01 for dog, cow" in found.note
    warnings = [line for line in lines if line.startswith("warning")]
    assert len(warnings) == 2
    assert "no object in these images: dog" in warnings[0]
    assert "no score reaches precision=0.9: cow" in warnings[1]


def test_a_given_score_goes_before_the_file_and_without_both_there_is_no_note(folder):
    save_operating_point(folder, POINTS, CLASSES, ThresholdRule("f1"), 40)
    config = PretrainedConfig.from_pretrained(folder)
    given = thresholds_of(config, CLASSES, 0.3, 0.01)
    assert given == ScoreThresholds((0.3,) * 3, (True,) * 3)
    forget_operating_point(config)  # for a training
    assert KEY not in config.to_dict()
    assert thresholds_of(config, CLASSES, None, 0.01) == ScoreThresholds((0.01,) * 3)


def test_the_card_has_one_section_whatever_was_chosen_before(folder):
    for rule in ("f1", "recall=0.5", "f1"):
        save_operating_point(folder, POINTS, CLASSES, ThresholdRule.parse(rule), 40)
    card = (folder / "README.md").read_text()
    assert card.count("## Operating point") == 1 and "by f1," in card and "recall=0.5" not in card
    assert "| cat | 0.4062 | 90.00 % | 75.00 % | 81.80 % | 12 |" in card
    assert "| dog | - | - | - | - | 0 |" in card
    assert card.index("## Scores") < card.index("## Use") < card.index("## Operating point")
    path = folder / "README.md"
    path.write_text(card + "\n## Images\n\nsquare\n")
    save_operating_point(folder, POINTS, CLASSES, ThresholdRule.parse("f1"), 40)
    assert path.read_text().endswith("\n## Images\n\nsquare\n")


def test_a_prediction_is_kept_from_the_score_of_its_class_on():
    thresholds = ScoreThresholds((0.5, 0.25))
    scores, labels = torch.tensor([0.5, 0.49, 0.25, 0.24]), torch.tensor([0, 0, 1, 1])
    assert thresholds.reached(scores, labels).tolist() == [True, False, True, False]


@pytest.mark.parametrize("content", [{}, {"rule": "f1", "classes": [{"score": 0.5}]}, 3])
def test_another_entry_in_config_json_is_refused(content):
    config = PretrainedConfig(**{KEY: content})
    with pytest.raises(UserError, match="expected the rule and a score for each of the 3 classes"):
        thresholds_of(config, CLASSES, None, 0.01)
