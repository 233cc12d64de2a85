"""Scores of detection: published numbers, pycocotools, and equal bits for any distribution."""

import json
import math
import random
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visionloop.engine.evaluation.bootstrap import score_intervals
from visionloop.metrics.average_precision import hits_needed
from visionloop.metrics.coco_evaluation import SCORE_KEYS
from visionloop.metrics.detection import DetectionMetric
from visionloop.metrics.rows import reorder_ragged

GOLD = Path(__file__).parents[2].parent / "shared" / "data" / "metrics-gold"
NAMES = (
    "AP",
    "AP50",
    "AP75",
    "APs",
    "APm",
    "APl",
    "AR1",
    "AR10",
    "AR100",
    "ARs",
    "ARm",
    "ARl",
)  # as in expected.json
needs_gold = pytest.mark.skipif(not GOLD.is_dir(), reason="the published examples are not here")


def image(ground_truth=(), detections=(), *, crowd=(), areas=None, loss=None):
    """Return one image.

    ground_truth: (label, x, y, w, h) each; detections: (label, score, x, y, w, h) each;
    crowd: positions of the crowd boxes.
    """
    ground_truth = np.array(ground_truth, dtype=np.float64).reshape(-1, 5)
    detections = np.array(detections, dtype=np.float64).reshape(-1, 6)
    is_crowd = np.isin(np.arange(len(ground_truth)), list(crowd))
    areas = (
        ground_truth[:, 3] * ground_truth[:, 4]
        if areas is None
        else np.array(areas, dtype=np.float64)
    )
    ground_truth = {
        "boxes": ground_truth[:, 1:],
        "labels": ground_truth[:, 0].astype(np.int64),
        "crowd": is_crowd,
        "areas": areas,
    }
    corners = np.concatenate([detections[:, 2:4], detections[:, 2:4] + detections[:, 4:]], axis=1)
    return {
        "ground_truth": ground_truth,
        "labels": detections[:, 0].astype(np.int64),
        "scores": detections[:, 1],
        "boxes": corners,
        "loss": loss,
    }


def measured(images, num_classes, sample_ids=None, backend="pycocotools"):
    """The metric of the images, a batch each."""
    metric = DetectionMetric(num_classes, backend)
    for one, sample_id in zip(
        images, range(len(images)) if sample_ids is None else sample_ids, strict=True
    ):
        predictions = {
            key: torch.from_numpy(one[key])[None] for key in ("boxes", "scores", "labels")
        }
        if one["loss"] is not None:
            predictions["losses"] = torch.tensor([one["loss"]])
        metric.update(
            predictions,
            {"sample_ids": torch.tensor([sample_id]), "ground_truth": [one["ground_truth"]]},
        )
    return metric


def random_images(count, num_classes, seed, *, detections=12, side=200):
    """Images with crowds, without boxes, without detections; equal scores between images only."""
    generator = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        number = int(generator.integers(0, 6))
        boxes = np.concatenate(
            [generator.uniform(0, side, (number, 2)), generator.uniform(5, side, (number, 2))],
            axis=1,
        )
        labels = generator.integers(0, num_classes, number)
        guesses = generator.integers(
            0, number, detections if number and generator.random() < 0.9 else 0
        )
        moved = (
            boxes[guesses]
            + generator.normal(0, 0.08, (len(guesses), 4)) * boxes[guesses][:, [2, 3, 2, 3]]
        )
        guessed = np.where(
            generator.random(len(guesses)) < 0.8,
            labels[guesses],
            generator.integers(0, num_classes, len(guesses)),
        )
        scores = np.sort(
            generator.choice(np.arange(1, 3 * detections), len(guesses), replace=False)
        )[::-1] / (3 * detections)
        crowd = np.flatnonzero(generator.random(number) < 0.15)
        ground_truth = np.concatenate([labels[:, None], boxes], axis=1)
        predicted = np.concatenate(
            [guessed[:, None], scores[:, None], moved[:, :2], np.maximum(moved[:, 2:], 1)], axis=1
        )
        images.append(image(ground_truth, predicted, crowd=crowd, loss=float(generator.random())))
    return images


def same(scores, others, tolerance=1e-9):
    return scores == pytest.approx({key: others[key] for key in scores}, abs=tolerance, nan_ok=True)


def coco_sample(dtype):
    """The 100 COCO images with the sample detections of the COCO API."""
    ground_truth = json.loads(
        (GOLD / "coco-val2014-100" / "instances_val2014_100.json").read_text()
    )
    detections = json.loads(
        (GOLD / "coco-val2014-100" / "instances_val2014_fakebbox100_results.json").read_text()
    )
    label_of = {
        category: label
        for label, category in enumerate(
            sorted(category["id"] for category in ground_truth["categories"])
        )
    }
    images, sample_ids = [], [image_entry["id"] for image_entry in ground_truth["images"]]
    for image_entry in sample_ids:
        here = [box for box in ground_truth["annotations"] if box["image_id"] == image_entry]
        boxes = [(label_of[box["category_id"]], *box["bbox"]) for box in here]
        guesses = [
            (label_of[box["category_id"]], box["score"], *box["bbox"])
            for box in detections
            if box["image_id"] == image_entry
        ]
        crowd, areas = (
            [i for i, box in enumerate(here) if box["iscrowd"]],
            [box["area"] for box in here],
        )
        images.append(image(boxes, guesses, crowd=crowd, areas=areas))
        images[-1]["boxes"] = images[-1]["boxes"].astype(dtype)
    return images, len(label_of), sample_ids


@needs_gold
def test_the_coco_sample_scores_as_published():
    expected = json.loads((GOLD / "coco-val2014-100" / "expected.json").read_text())
    images, num_classes, sample_ids = coco_sample(np.float64)
    assert not all(
        len(one["boxes"]) for one in images
    )  # the trap: without such images AP would be 0.507
    metric = measured(images, num_classes, sample_ids)
    scores = metric.compute()
    assert tuple(scores) == SCORE_KEYS
    assert [round(score, 9) for score in scores.values()] == [
        expected["pycocotools"][name] for name in NAMES
    ]
    assert [round(score, 3) for score in scores.values()] == pytest.approx(
        [expected["published"][name] for name in NAMES], abs=0.0011
    )
    assert same(metric.compute(np.arange(len(images))), scores)


@needs_gold
def test_the_documented_example_of_torchmetrics_scores_as_printed():
    example = json.loads((GOLD / "map-docs" / "torchmetrics_bbox_example.json").read_text())
    metric = DetectionMetric(1)
    for i, (did_you_mean, target) in enumerate(
        zip(example["preds"], example["target"], strict=True)
    ):
        corners = np.array(target["boxes"])
        boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
        crowd = np.zeros(len(boxes), dtype=bool)
        ground_truth = {
            "boxes": boxes,
            "labels": np.array(target["labels"]),
            "crowd": crowd,
            "areas": boxes[:, 2] * boxes[:, 3],
        }
        metric.update(
            {key: torch.tensor([did_you_mean[key]]) for key in did_you_mean},
            {"sample_ids": torch.tensor([i]), "ground_truth": [ground_truth]},
        )
    scores = metric.compute()
    theirs = dict(
        map="mAP",
        map_50="mAP50",
        map_75="mAP75",
        map_small="mAP_small",
        map_medium="mAP_medium",
        map_large="mAP_large",
    )
    theirs |= dict(mar_1="AR1", mar_10="AR10", mar_100="AR100")
    for key, value in example["expected"].items():
        expected = math.nan if value == -1 else value
        assert scores[theirs[key]] == pytest.approx(expected, abs=1e-6, nan_ok=True), key


def test_true_positives_misses_and_false_positives_count_by_hand():
    matched, missed = (0, 10, 10, 50, 50), (0, 200, 200, 50, 50)
    hit, invented = (0, 0.9, 10, 10, 50, 50), (0, 0.95, 300, 10, 50, 50)
    assert measured([image([matched], [hit])], 1).compute()["mAP"] == pytest.approx(1)
    # one of two matched: recall 0 to 0.5 has precision 1, so 51 of 101 points
    assert measured([image([matched, missed], [hit])], 1).compute()["mAP"] == pytest.approx(
        51 / 101
    )
    assert measured([image([matched], [hit, invented])], 1).compute()["mAP"] == pytest.approx(0.5)


def test_an_image_without_detections_counts():
    detected, missed = (
        image([(0, 10, 10, 50, 50)], [(0, 0.9, 10, 10, 50, 50)]),
        image([(0, 10, 10, 50, 50)]),
    )
    assert measured([detected], 1).compute()["AR100"] == 1
    for metric in (measured([detected, missed], 1), measured([missed, detected], 1)):
        assert metric.compute()["AR100"] == 0.5 and len(metric) == 2
        assert metric.compute([0, 1])["mAP"] == pytest.approx(51 / 101)
    no_detections = measured([missed], 1)
    assert no_detections.compute()["mAP"] == no_detections.compute([0])["mAP"] == 0


def test_a_crowd_is_neither_required_nor_a_mistake():
    crowd, person = (0, 0, 0, 100, 100), (0, 200, 0, 50, 50)
    inside, hit = (0, 0.99, 10, 10, 20, 20), (0, 0.5, 200, 0, 50, 50)
    scores = measured([image([crowd, person], [inside, hit], crowd=[0], loss=3.0)], 1)
    assert scores.compute()["mAP"] == pytest.approx(1)
    assert scores.compute([0])["mAP"] == pytest.approx(1)
    assert scores.compute()["val_loss"] == 3 and scores.per_class()["boxes"].tolist() == [1]


def test_sizes_are_those_of_the_annotated_area():
    ground_truth, hit = (0, 10, 10, 100, 100), (0, 0.9, 10, 10, 100, 100)
    by_box = measured([image([ground_truth], [hit])], 1).compute()
    assert by_box["mAP_large"] == pytest.approx(1) and math.isnan(by_box["mAP_small"])
    by_area = measured([image([ground_truth], [hit], areas=[900])], 1).compute()
    assert by_area["AR_small"] == pytest.approx(1) and math.isnan(by_area["AR_large"])


@settings(max_examples=20)
@given(count=st.integers(1, 12), num_classes=st.integers(1, 4), seed=st.integers(0, 10_000))
def test_every_image_once_is_the_number_of_pycocotools(count, num_classes, seed):
    metric = measured(random_images(count, num_classes, seed), num_classes)
    assert same(metric.compute(np.arange(count)), metric.compute())


@settings(max_examples=30)
@given(
    count=st.integers(1, 10),
    num_classes=st.integers(1, 4),
    seed=st.integers(0, 10_000),
    data=st.data(),
)
def test_repeated_picks_score_as_repeated_images(count, num_classes, seed, data):
    images = random_images(count, num_classes, seed)
    picks = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=2 * count))
    repeated = measured([images[i] for i in sorted(picks)], num_classes)
    assert same(measured(images, num_classes).compute(picks), repeated.compute())


@settings(max_examples=15, deadline=None)
@given(
    count=st.integers(1, 8),
    num_classes=st.integers(1, 3),
    seed=st.integers(0, 10_000),
    data=st.data(),
)
def test_every_score_of_repeated_picks_is_that_of_repeated_images(count, num_classes, seed, data):
    """Also by size and with 1 or 10 detections, and by class."""
    images = random_images(count, num_classes, seed, detections=15)
    picks = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=2 * count))
    metric = measured(images, num_classes)
    repeated = measured([images[i] for i in sorted(picks)], num_classes)
    found, expected = metric.compute_all(picks), repeated.compute()
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, abs=1e-9, nan_ok=True), key
    by_class, expected_by_class = metric.per_class(picks), repeated.per_class()
    for column, values in expected_by_class.items():
        np.testing.assert_allclose(by_class[column], values, atol=1e-9)


def test_a_detection_beyond_a_hundred_does_not_count():
    ground_truth = (0, 0, 0, 50, 50)
    invented = [(0, 0.9 - i / 1000, 100 + i, 100, 20, 20) for i in range(100)]
    metric = measured([image([ground_truth], [*invented, (0, 0.1, 0, 0, 50, 50)])], 1)
    assert metric.compute()["mAP"] == metric.compute([0])["mAP"] == 0


@settings(max_examples=15)
@given(
    count=st.integers(1, 12), seed=st.integers(0, 1000), shards=st.integers(1, 3), data=st.data()
)
def test_any_sharding_gives_the_last_bit_of_the_whole(count, seed, shards, data):
    images, sample_ids = (
        random_images(count, 3, seed),
        random.Random(seed).sample(range(1000), count),
    )
    owners = data.draw(st.lists(st.integers(0, shards - 1), min_size=count, max_size=count))
    whole, merged = measured(images, 3, sample_ids), DetectionMetric(3)
    shares = [[i for i in range(count) if owners[i] == owner] for owner in range(shards)]
    merged.merge(
        [
            measured([images[i] for i in share], 3, [sample_ids[i] for i in share]).state()
            for share in reversed(shares)
        ]
    )
    assert len(merged) == count
    assert all(
        np.array_equal(values, whole.state()[column]) for column, values in merged.state().items()
    )
    assert np.array_equal(
        list(merged.compute().values()), list(whole.compute().values()), equal_nan=True
    )
    picks = np.random.default_rng(seed).integers(0, count, count)
    assert np.array_equal(
        list(merged.compute(picks).values()), list(whole.compute(picks).values()), equal_nan=True
    )


def test_merging_replaces_what_was_there():
    metric = measured(random_images(6, 2, 1), 2)
    before = metric.compute()
    metric.merge([metric.state()])
    assert len(metric) == 6 and metric.compute() == before
    metric.merge([])
    assert len(metric) == 0


def test_the_state_is_numpy_arrays_alone():
    state = measured(random_images(4, 2, 0), 2).state()
    assert all(
        isinstance(values, np.ndarray) and values.dtype != object for values in state.values()
    )
    assert state["num_detections"].sum() == len(state["boxes"]) and state[
        "num_ground_truth"
    ].sum() == len(state["ground_truth_boxes"])


def test_the_validation_loss_is_per_box():
    boxes = [(0, 0, 0, 10, 10), (0, 20, 20, 10, 10), (0, 50, 50, 10, 10)]
    metric = measured([image(boxes, loss=6.0), image(boxes[:1], loss=1.0), image(loss=0.5)], 1)
    assert metric.compute()["val_loss"] == 7.5 / 4
    assert metric.compute([0, 0, 2])["val_loss"] == 12.5 / 6
    assert metric.compute([2])["val_loss"] == 0.5  # no boxes: over one
    broken = measured([image(boxes, loss=6.0), image(boxes, loss=math.nan)], 1)
    assert math.isnan(broken.compute()["val_loss"]) and broken.compute([0, 0])["val_loss"] == 2


def test_every_image_has_its_loss_per_box_that_is_no_crowd():
    boxes = [(0, 0, 0, 9, 9), (0, 20, 20, 9, 9), (0, 40, 40, 9, 9)]
    images = [image(boxes, crowd=[2], loss=3.0), image(loss=0.5), image(boxes[:1])]
    table = measured(images, 1, sample_ids=[7, 2, 4]).per_image()
    assert table["sample_ids"].tolist() == [2, 4, 7]
    assert np.array_equal(table["losses"], [0.5, np.nan, 1.5], equal_nan=True)


def test_the_validation_loss_is_left_out_where_none_was_given():
    with_loss, without = image([(0, 0, 0, 10, 10)], loss=1.0), image([(0, 0, 0, 10, 10)])
    assert "val_loss" not in measured([without], 1).compute() and "val_loss" not in measured(
        [without], 1
    ).compute([0])
    whole = DetectionMetric(1)
    whole.merge(
        [DetectionMetric(1).state(), measured([with_loss], 1).state()]
    )  # a rank without images has no loss to give
    assert list(whole.compute()) == [*SCORE_KEYS, "val_loss"]


def test_detections_that_are_not_finite_find_nothing():
    ground_truth = (0, 0, 0, 50, 50)
    broken = measured(
        [
            image(
                [ground_truth],
                [
                    (0, 0.9, math.nan, 0, 50, 50),
                    (0, math.nan, 0, 0, 50, 50),
                    (0, 0.5, 0, 0, math.inf, 9),
                ],
            )
        ],
        1,
    )
    assert broken.compute()["mAP"] == 0
    repaired = measured(
        [image([ground_truth], [(0, 0.9, math.nan, 0, 50, 50), (0, 0.1, 0, 0, 50, 50)])], 1
    )
    assert repaired.compute()["mAP"] == pytest.approx(1)


def test_a_box_turned_inside_out_is_a_mistake():
    ground_truth, hit = (0, 0, 0, 50, 50), (0, 0.5, 0, 0, 50, 50)
    for w, h in ((-20, 20), (20, -20), (-20, -20)):
        metric = measured([image([ground_truth], [(0, 0.9, 30, 30, w, h), hit])], 1)
        assert metric.compute()["mAP"] == metric.compute([0])["mAP"] == pytest.approx(0.5)


def test_classes_without_ground_truth_take_no_part():
    metric = measured(
        [image([(1, 0, 0, 50, 50)], [(1, 0.9, 0, 0, 50, 50), (2, 0.8, 0, 0, 50, 50)], loss=1.0)],
        4,
    )
    assert metric.compute()["mAP"] == metric.compute([0])["mAP"] == pytest.approx(1)
    per_class = metric.per_class()
    assert per_class["boxes"].tolist() == [0, 1, 0, 0] and per_class["boxes"].dtype == np.int64
    assert (
        np.isnan(per_class["AP"]).tolist()
        == np.isnan(per_class["AP50"]).tolist()
        == [True, False, True, True]
    )
    assert np.isnan(metric.curves()["precision"]).all(axis=1).tolist() == [True, False, True, True]


def test_the_scores_are_means_over_classes():
    metric = measured(random_images(12, 3, 5), 3)
    scores, per_class, curves = metric.compute(), metric.per_class(), metric.curves()
    assert per_class["AP"].mean() == pytest.approx(scores["mAP"]) and per_class[
        "AP50"
    ].mean() == pytest.approx(scores["mAP50"])
    assert curves["precision"].mean(axis=1) == pytest.approx(per_class["AP50"])
    assert (
        np.allclose(curves["recall"], np.linspace(0, 1, 101))
        and (np.diff(curves["precision"]) <= 0).all()
    )


def test_the_curve_names_the_score_at_which_a_recall_is_reached():
    ground_truth = [(0, 100 * i, 0, 50, 50) for i in range(4)]
    hits = [(0, 0.9 - 0.1 * i, 100 * i, 0, 50, 50) for i in range(3)]
    curves = measured([image(ground_truth, hits)], 1).curves()
    scores = curves["scores"][0]
    assert scores[[0, 25, 26, 50, 51, 75]] == pytest.approx([0.9, 0.9, 0.8, 0.8, 0.7, 0.7])
    assert np.isnan(scores[76:]).all() and (curves["precision"][0, 76:] == 0).all()


@pytest.mark.filterwarnings("error")
def test_without_images_or_ground_truth_every_score_is_nan():
    metric = DetectionMetric(3)
    assert len(metric) == 0 and all(math.isnan(score) for score in metric.compute().values())
    assert np.isnan(metric.per_class()["AP"]).all() and metric.per_class()["boxes"].tolist() == [
        0,
        0,
        0,
    ]
    unlabeled = measured([image([], [(0, 0.9, 0, 0, 10, 10)], loss=0.0)], 3)
    assert all(math.isnan(unlabeled.compute()[key]) for key in SCORE_KEYS) and math.isnan(
        unlabeled.compute([0])["mAP"]
    )


def test_pycocotools_prints_nothing(capfd):
    metric = measured(random_images(3, 2, 0), 2)
    metric.compute(), metric.compute([0, 0])
    assert capfd.readouterr() == ("", "")


def test_batches_that_do_not_fit_are_refused():
    one = image([(0, 0, 0, 10, 10)], [(0, 0.9, 0, 0, 10, 10)])
    good = {key: torch.from_numpy(one[key])[None] for key in ("boxes", "scores", "labels")}
    batch = {"sample_ids": torch.tensor([0]), "ground_truth": [one["ground_truth"]]}
    for key, wrong in (
        ("boxes", torch.zeros(1, 2, 4)),
        ("scores", torch.zeros(2, 1)),
        ("labels", torch.zeros(1, 3).long()),
    ):
        with pytest.raises(ValueError, match="predictions of 1 images"):
            DetectionMetric(2).update(good | {key: wrong}, batch)
    with pytest.raises(ValueError, match="labels: expected 0 to 1, got 2 to 2"):
        DetectionMetric(2).update(good | {"labels": torch.tensor([[2]])}, batch)
    with pytest.raises(ValueError, match="ground_truth_labels: expected 0 to 1"):
        DetectionMetric(2).update(
            good, batch | {"ground_truth": [one["ground_truth"] | {"labels": np.array([-1])}]}
        )


def test_a_backend_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="expected one of pycocotools, faster"):
        DetectionMetric(2, "slower")


def test_the_fast_backend_gives_equal_numbers():
    pytest.importorskip("faster_coco_eval")
    for seed in range(10):
        images = random_images(8, 3, seed)
        slow, fast = measured(images, 3), measured(images, 3, backend="faster")
        assert same(fast.compute(), slow.compute(), 1e-12) and list(fast.compute()) == list(
            slow.compute()
        )
        assert fast.compute([0, 0, 3]) == pytest.approx(slow.compute([0, 0, 3]), abs=0, nan_ok=True)
        for ours, theirs in ((fast.curves(), slow.curves()), (fast.per_class(), slow.per_class())):
            assert all(
                np.allclose(ours[key], theirs[key], atol=1e-12, equal_nan=True) for key in theirs
            )


def test_a_recall_needs_as_many_boxes_as_a_search_finds():
    recall = np.linspace(0, 1, 101)
    for ground_truth in (*range(1, 400), 36_335, 250_000):
        expected = np.searchsorted(np.arange(ground_truth + 1) / ground_truth, recall)
        assert np.array_equal(hits_needed(recall, np.array([ground_truth]))[0], expected), (
            ground_truth
        )


@given(counts=st.lists(st.integers(0, 4), max_size=8), seed=st.integers(0, 100))
def test_flat_rows_follow_their_images(counts, seed):
    order = np.random.default_rng(seed).permutation(len(counts))
    owners = np.repeat(np.arange(len(counts)), counts)
    rows = reorder_ragged(np.arange(len(owners)), np.array(counts, dtype=np.int64), order)
    assert (
        owners[rows].tolist() == np.repeat(order, np.array(counts, dtype=np.int64)[order]).tolist()
    )
    assert all((np.diff(rows[owners[rows] == image]) == 1).all() for image in range(len(counts)))
    assert sorted(rows.tolist()) == list(range(len(owners)))


def test_five_hundred_draws_take_a_few_seconds():
    images = [one for seed in range(3) for one in random_images(29, 3, seed, detections=300)]
    metric = measured(images, 3)
    scores = metric.compute()  # the matching, once
    started = time.process_time()
    intervals = score_intervals(metric, draws=500)
    assert time.process_time() - started < 5
    assert set(intervals) == {"mAP", "mAP50", "val_loss"}
    assert all(low < scores[key] < high for key, (low, high) in intervals.items())
