"""Scores of segmentation: a published example, brute force, equal bits for any distribution."""

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visionloop.metrics.segmentation import SegmentationMetric, count_pairs

GOLD = (
    Path(__file__).parents[2].parent
    / "shared"
    / "data"
    / "metrics-gold"
    / "mean-iou"
    / "hf_evaluate_example.json"
)


def image(target, prediction, loss=None, levels=None):
    """target, prediction: [H, W] of ids; levels: [L, H, W]."""
    as_ids = [
        None if ids is None else torch.as_tensor(ids).to(torch.uint8)
        for ids in (target, prediction, levels)
    ]
    return dict(zip(("target", "prediction", "levels"), as_ids, strict=True)) | {"loss": loss}


def measured(images, num_classes, sample_ids=None, *, levels=0, batch_size=3):
    metric = SegmentationMetric(num_classes, levels)
    sample_ids = list(range(len(images))) if sample_ids is None else list(sample_ids)
    for start in range(0, len(images), batch_size):
        here = images[start : start + batch_size]
        predictions = {"ids": [one["prediction"] for one in here]}
        if levels:
            predictions["level_ids"] = [one["levels"] for one in here]
        if here[0]["loss"] is not None:
            predictions["losses"] = torch.tensor([one["loss"] for one in here], dtype=torch.float64)
        ids = torch.tensor(sample_ids[start : start + batch_size])
        metric.update(predictions, {"ids": [one["target"] for one in here], "sample_ids": ids})
    return metric


def random_images(count, num_classes, seed, *, levels=0):
    """Images of several sizes, some all ignored, half of the pixels right, some classes absent."""
    generator = np.random.default_rng(seed)
    used = generator.permutation(num_classes)[: max(1, num_classes - 2)]
    images = []
    for _ in range(count):
        size = tuple(generator.integers(1, 9, 2))
        target = np.where(generator.random(size) < 0.2, 255, generator.choice(used, size))
        target = np.full(size, 255) if generator.random() < 0.1 else target
        guesses = [
            np.where(
                (generator.random(size) < 0.5) & (target < 255),
                target,
                generator.integers(0, num_classes, size),
            )
            for _ in range(1 + levels)
        ]
        stacked = np.stack(guesses[1:]) if levels else None
        images.append(image(target, guesses[0], float(generator.random()), stacked))
    return images


def by_hand(images, num_classes, key="prediction"):
    """The scores in plain Python, pixel by pixel."""
    true, predicted, both = ([0] * num_classes for _ in range(3))
    for one in images:
        for t, p in zip(one["target"].flatten().tolist(), one[key].flatten().tolist(), strict=True):
            if t == 255:
                continue
            true[t] += 1
            predicted[p] += 1
            both[t] += t == p
    present = [k for k in range(num_classes) if true[k] + predicted[k]]
    labeled = [k for k in range(num_classes) if true[k]]
    mean = {True: lambda values: sum(values) / len(values), False: lambda values: math.nan}
    return {
        "miou": mean[bool(present)](
            [both[k] / (true[k] + predicted[k] - both[k]) for k in present]
        ),
        "pixel_accuracy": mean[bool(labeled)]([sum(both) / max(1, sum(true))]),
        "mean_class_accuracy": mean[bool(labeled)]([both[k] / true[k] for k in labeled]),
        "val_loss": mean[bool(images)]([one["loss"] for one in images]),
    }


@pytest.mark.skipif(not GOLD.is_file(), reason="the published example is not here")
def test_the_published_example_comes_out_exactly():
    example = json.loads(GOLD.read_text())
    pairs = zip(example["references"], example["predictions"], strict=True)
    metric = measured([image(*pair) for pair in pairs], example["num_labels"])
    scores, per_class, expected = metric.compute(), metric.per_class(), example["expected"]
    assert scores["miou"] == expected["mean_iou"]
    assert scores["mean_class_accuracy"] == pytest.approx(expected["mean_accuracy"], abs=1e-15)
    assert scores["pixel_accuracy"] == expected["overall_accuracy"]
    assert per_class["IoU"].tolist() == expected["per_category_iou"]
    assert per_class["accuracy"].tolist() == expected["per_category_accuracy"]


def test_an_example_done_on_paper():
    target, prediction = [[0, 0, 1], [1, 255, 2]], [[0, 1, 1], [1, 0, 0]]
    metric = measured([image(target, prediction, 2.0)], 4)
    per_class = metric.per_class()
    assert per_class["IoU"][:3].tolist() == [1 / 3, 2 / 3, 0] and math.isnan(per_class["IoU"][3])
    assert per_class["accuracy"][:3].tolist() == [1 / 2, 1, 0] and math.isnan(
        per_class["accuracy"][3]
    )
    assert per_class["pixels"].tolist() == [0.4, 0.4, 0.2, 0]
    assert metric.compute() == {
        "miou": 1 / 3,
        "pixel_accuracy": 3 / 5,
        "mean_class_accuracy": 1 / 2,
        "val_loss": 2.0,
    }
    assert metric.confusion().tolist() == [[1, 1, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]


@given(count=st.integers(1, 8), num_classes=st.integers(1, 12), seed=st.integers(0, 1000))
@settings(max_examples=40)
def test_scores_are_those_of_brute_force(count, num_classes, seed):
    images = random_images(count, num_classes, seed, levels=2)
    scores = measured(images, num_classes, levels=2).compute()
    of_levels = [scores.pop(f"miou_level_{level}") for level in range(2)]
    assert scores == pytest.approx(by_hand(images, num_classes), abs=1e-12, nan_ok=True)
    for level, score in enumerate(of_levels):
        level_images = [one | {"level": one["levels"][level]} for one in images]
        assert score == pytest.approx(
            by_hand(level_images, num_classes, "level")["miou"], abs=1e-12, nan_ok=True
        )


@given(
    count=st.integers(1, 12),
    seed=st.integers(0, 1000),
    owners=st.lists(st.integers(0, 3), min_size=12, max_size=12),
)
@settings(max_examples=40)
def test_any_sharding_gives_the_bits_of_the_whole(count, seed, owners):
    images = random_images(count, 6, seed, levels=1)
    sample_ids = np.random.default_rng(seed).permutation(100)[:count]
    whole = measured(images, 6, sample_ids, levels=1)
    states = []
    for owner in range(4):
        rows = [row for row in range(count) if owners[row] == owner]
        states.append(
            measured(
                [images[row] for row in rows], 6, sample_ids[rows], levels=1, batch_size=2
            ).state()
        )
    random.Random(seed).shuffle(states)
    merged = SegmentationMetric(6, levels=1)
    merged.merge(states)
    assert repr(merged.compute()) == repr(whole.compute())  # to the last bit, and nan is nan
    assert all(
        np.array_equal(values, whole.state()[column]) for column, values in merged.state().items()
    )
    assert len(merged) == len(whole) == count


def test_merging_replaces_what_was_there():
    metric = measured(random_images(5, 3, 0), 3)
    before, confusion = metric.compute(), metric.confusion()
    metric.merge([metric.state()])
    assert (
        len(metric) == 5
        and metric.compute() == before
        and np.array_equal(metric.confusion(), confusion)
    )


@given(count=st.integers(1, 10), seed=st.integers(0, 100), data=st.data())
@settings(max_examples=40)
def test_picked_images_score_as_if_they_were_all(count, seed, data):
    images = random_images(count, 4, seed)
    sample_ids = np.random.default_rng(seed).permutation(100)[:count]
    picks = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=20))
    in_order = [images[row] for row in np.argsort(sample_ids)]
    scores = measured(images, 4, sample_ids).compute(np.array(picks))
    assert scores == pytest.approx(
        by_hand([in_order[pick] for pick in picks], 4), abs=1e-12, nan_ok=True
    )


def test_an_absent_class_is_no_zero_and_a_false_alarm_is():
    target = np.zeros((2, 2))
    assert measured([image(target, target)], 5).compute()["miou"] == 1
    assert measured([image(target, [[0, 0], [0, 3]])], 5).compute()["miou"] == pytest.approx(
        0.75 / 2
    )


def test_every_image_has_the_overlap_of_the_classes_that_are_in_it():
    images = [
        image([[0, 0, 1, 1]], [[0, 1, 1, 1]]),  # 1 of 2, 2 of 3
        image([[0, 0, 0, 0]], [[0, 0, 0, 2]]),  # 3 of 4; what is not there is no zero of its own
        image([[255, 255]], [[0, 1]]),
    ]
    table = measured(images, 3, sample_ids=[5, 1, 3]).per_image()
    assert table["sample_ids"].tolist() == [1, 3, 5]
    assert table["miou"] == pytest.approx([3 / 4, math.nan, (1 / 2 + 2 / 3) / 2], nan_ok=True)


def test_ignored_pixels_take_no_part_whatever_was_predicted_there():
    counted = image([[0, 1]], [[0, 0]], 1.0)
    ignored = image(np.full((3, 4), 255), np.arange(12).reshape(3, 4) % 2, 3.0)
    alone, both = measured([counted], 2), measured([counted, ignored], 2)
    assert len(both) == 2 and both.compute()["val_loss"] == 2
    assert both.compute() | {"val_loss": 1.0} == alone.compute()
    scores = measured([ignored], 2).compute()
    assert scores.pop("val_loss") == 3 and all(math.isnan(score) for score in scores.values())
    assert np.isnan([*measured([ignored], 2).per_class().values()]).all()


def test_a_prediction_that_is_no_class_is_wrong():
    metric = measured([image([[0, 0, 1, 255]], [[0, 255, 200, 255]])], 2)
    assert metric.per_class()["IoU"].tolist() == [0.5, 0] and metric.compute()[
        "pixel_accuracy"
    ] == pytest.approx(1 / 3)
    assert metric.confusion().tolist() == [[1, 0], [0, 0]]


def test_without_images_every_score_is_nan():
    metric = SegmentationMetric(5, levels=1)
    assert len(metric) == 0 and metric.confusion().sum() == 0
    assert all(math.isnan(score) for score in metric.compute().values())
    assert np.isnan([*metric.per_class().values()]).all() and math.isnan(
        metric.majority_scores()["miou"]
    )
    assert len(SegmentationMetric(5, levels=1).state()["hits"]) == 0


def test_the_loss_is_left_out_where_an_image_has_none():
    with_loss, without = (
        random_images(1, 3, 0),
        [one | {"loss": None} for one in random_images(2, 3, 1)],
    )
    assert "val_loss" in measured(with_loss, 3).compute()
    assert "val_loss" not in measured([*with_loss, *without], 3, batch_size=1).compute()


def test_a_loss_that_is_no_number_shows():
    images = [
        one | {"loss": loss}
        for one, loss in zip(random_images(2, 3, 0), (1.0, math.nan), strict=True)
    ]
    assert (
        math.isnan(measured(images, 3).compute()["val_loss"])
        and measured(images, 3).compute([0, 0])["val_loss"] == 1
    )


def test_the_trivial_prediction_is_the_largest_class():
    metric = measured([image([[0, 0, 0, 1, 2, 255]], np.zeros((1, 6)))], 4)
    assert metric.majority_scores() == {"miou": 0.6 / 3, "pixel_accuracy": 0.6}
    assert metric.majority_scores() == {
        key: metric.compute()[key] for key in ("miou", "pixel_accuracy")
    }
    assert metric.majority_scores(majority_class=3) == {"miou": 0, "pixel_accuracy": 0}


@pytest.mark.parametrize("num_classes", [1, 180, 255])
def test_pairs_are_counted_for_any_number_of_classes(num_classes):
    generator = np.random.default_rng(0)
    target, prediction = (
        generator.choice([*range(num_classes), 255], (40, 50)).astype(np.uint8) for _ in "tp"
    )
    expected = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
    np.add.at(expected, (np.minimum(target, num_classes), np.minimum(prediction, num_classes)), 1)
    transposed = torch.from_numpy(np.ascontiguousarray(prediction.T)).T  # other strides
    assert np.array_equal(count_pairs(torch.from_numpy(target), transposed, num_classes), expected)


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"expected shape \(2, 3\), got \(3, 2\)"):
        measured([image(np.zeros((2, 3)), np.zeros((3, 2)))], 2)
    with pytest.raises(ValueError, match=r"level_ids \(1, 2, 3\)"):
        measured(
            [image(np.zeros((2, 3)), np.zeros((2, 3)), levels=np.zeros((1, 2, 3)))], 2, levels=2
        )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_counts_on_cuda_are_those_of_the_cpu():
    images = random_images(4, 7, 0, levels=2)
    on_gpu = [
        {key: value.cuda() if torch.is_tensor(value) else value for key, value in one.items()}
        for one in images
    ]
    assert measured(on_gpu, 7, levels=2).compute() == measured(images, 7, levels=2).compute()
