"""The score threshold of a class: brute force over every score, with a matching of its own."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visionloop.metrics.detection import DetectionMetric
from visionloop.metrics.detection_confusion import match_boxes
from visionloop.metrics.operating_point import ThresholdRule, choose_threshold

RULES = ("f1", "precision=0.7", "precision=1", "recall=0.4", "recall=0.9")


def make_images(seed, count=6, num_classes=2):
    """Images with few possible scores, so that many are equal."""
    generator = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        truth, found = generator.integers(0, 4), generator.integers(0, 8)
        boxes = np.column_stack(
            [generator.integers(0, 60, (truth, 2)), generator.integers(15, 40, (truth, 2))]
        ).astype(float)
        near = boxes[generator.integers(0, truth, found)] if truth else np.zeros((0, 4))
        near = near + generator.integers(-6, 7, near.shape)
        labels = generator.integers(0, num_classes, truth)
        images.append(
            {
                "boxes": boxes,
                "labels": labels,
                "predicted": near,
                "predicted_labels": generator.integers(0, num_classes, len(near)),
                "scores": generator.integers(1, 6, len(near)) / 8,
            }
        )
    return images


def metric_of(images, num_classes=2):
    metric = DetectionMetric(num_classes)
    for place, one in enumerate(images):
        corners = one["predicted"].copy()
        corners[:, 2:] += corners[:, :2]
        predictions = {
            "boxes": torch.from_numpy(corners)[None],
            "scores": torch.from_numpy(one["scores"])[None],
            "labels": torch.from_numpy(one["predicted_labels"])[None],
        }
        truth = {
            "boxes": one["boxes"],
            "labels": one["labels"],
            "crowd": np.zeros(len(one["labels"]), dtype=bool),
            "areas": one["boxes"][:, 2] * one["boxes"][:, 3],
        }
        metric.update(predictions, {"sample_ids": torch.tensor([place]), "ground_truth": [truth]})
    return metric


def counts_at(images, label, threshold):
    """(hits, predictions, objects) of a class when only scores from a threshold on are kept."""
    hits = predictions = objects = 0
    for one in images:
        kept = (one["scores"] >= threshold) & (one["predicted_labels"] == label)
        chosen = {
            "boxes": one["predicted"][kept],
            "scores": one["scores"][kept],
            "labels": one["predicted_labels"][kept],
        }
        crowd = np.zeros(len(one["labels"]), dtype=bool)
        is_matched, _ = match_boxes(one["boxes"], one["labels"], crowd, chosen)
        hits += int(is_matched.sum())
        predictions += int(kept.sum())
        objects += int((one["labels"] == label).sum())
    return hits, predictions, objects


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), text=st.sampled_from(RULES))
def test_the_threshold_is_the_best_of_all_scores_by_brute_force(seed, text):
    images, rule = make_images(seed), ThresholdRule.parse(text)
    for label, point in enumerate(metric_of(images).operating_points(rule)):
        best = None  # (what is largest, threshold)
        for threshold in sorted({s for one in images for s in one["scores"].tolist()}):
            hits, predictions, objects = counts_at(images, label, threshold)
            if not hits:
                continue
            precision, recall = hits / predictions, hits / objects
            met, value = {
                "f1": (True, 2 * hits / (predictions + objects)),
                "precision": (precision >= rule.required, recall),
                "recall": (recall >= rule.required, precision),
            }[rule.goal]
            if met:
                best = max(best or (-1, 0), (value, threshold))
        if best is None:
            assert point.threshold is None and math.isnan(point.f1)
            continue
        hits, predictions, objects = counts_at(images, label, point.threshold)
        # the class may have no prediction of the score that another class has
        assert counts_at(images, label, best[1]) == (hits, predictions, objects)
        assert (point.precision, point.recall, point.objects) == (
            hits / predictions,
            hits / objects,
            objects,
        )
        assert point.f1 == pytest.approx(2 * hits / (predictions + objects))


def test_equal_scores_are_kept_or_left_out_together():
    scores, is_hit = np.array([0.9, 0.5, 0.5, 0.5]), np.array([True, True, False, False])
    point = choose_threshold(scores, is_hit, 2, ThresholdRule("recall", 1.0))
    assert (point.threshold, point.precision, point.recall) == (0.5, 0.5, 1.0)
    assert choose_threshold(scores, is_hit, 2, ThresholdRule("precision", 0.6)).threshold == 0.9


def test_a_rule_that_no_score_meets_has_no_threshold():
    scores, is_hit = np.array([0.9, 0.5]), np.array([False, True])
    point = choose_threshold(scores, is_hit, 4, ThresholdRule("precision", 0.9))
    assert point.threshold is None and math.isnan(point.precision) and point.objects == 4
    nothing = choose_threshold(np.zeros(0), np.zeros(0, dtype=bool), 0, ThresholdRule("f1"))
    assert nothing.threshold is None and nothing.objects == 0


def test_of_equally_good_thresholds_the_highest_is_taken():
    scores, is_hit = np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, False, False, True])
    # F1 of 1 of 1 and 2 objects is 2/3, and so is that of 2 of 4
    point = choose_threshold(scores, is_hit, 2, ThresholdRule("f1"))
    assert point.threshold == 0.9 and point.f1 == pytest.approx(2 / 3)


@pytest.mark.parametrize("text", ["f2", "precision", "precision=0", "recall=1.1", "f1=0.5", "nan"])
def test_another_rule_is_refused_with_those_that_there_are(text):
    with pytest.raises(ValueError, match="expected f1, precision=P or recall=R"):
        ThresholdRule.parse(text)
