"""Scores of panoptic segmentation: panopticapi's own numbers, brute force, equal bits."""

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from visionloop.metrics.panoptic_quality import PanopticQualityMetric

GOLD = Path(__file__).parents[2].parent / "shared" / "data" / "metrics-gold" / "panoptic"
needs_gold = pytest.mark.skipif(not GOLD.is_dir(), reason="the published examples are not here")
IS_THING = (True, True, False, False, True)


def image(truth, true_labels, predicted, labels, *, crowd=(), areas=None, loss=None, half=None):
    """Return one image.

    truth, predicted: [H, W] of 0 (void) or i + 1; crowd: positions of the crowd segments; half:
    (map, labels) of the predictions at score 0.5.
    """
    truth, true_labels = np.asarray(truth), np.array(true_labels, dtype=np.int64)
    counted = np.bincount(truth.ravel(), minlength=len(true_labels) + 1)[1:]
    return {
        "ground_truth": {
            "segment_map": torch.as_tensor(truth).to(torch.int32),
            "labels": true_labels,
            "crowd": np.isin(np.arange(len(true_labels)), list(crowd)),
            "areas": np.array(counted if areas is None else areas, dtype=np.int64),
        },
        "prediction": as_prediction(predicted, labels),
        "half": None if half is None else as_prediction(*half),
        "loss": loss,
    }


def as_prediction(segment_map, labels):
    labels = torch.as_tensor(np.array(labels, dtype=np.int64))
    return torch.as_tensor(np.asarray(segment_map)).to(torch.int32), labels


def listed(predictions):
    return {
        "segment_maps": [one for one, _ in predictions],
        "labels": [labels for _, labels in predictions],
    }


def measured(images, is_thing=IS_THING, sample_ids=None, *, batch_size=3):
    metric = PanopticQualityMetric(is_thing)
    sample_ids = list(range(len(images))) if sample_ids is None else list(sample_ids)
    for start in range(0, len(images), batch_size):
        here = images[start : start + batch_size]
        predictions = listed([one["prediction"] for one in here])
        if here[0]["half"] is not None:
            predictions["at_half"] = listed([one["half"] for one in here])
        if here[0]["loss"] is not None:
            predictions["losses"] = torch.tensor([one["loss"] for one in here], dtype=torch.float64)
        batch = {
            "ground_truth": [one["ground_truth"] for one in here],
            "sample_ids": torch.tensor(sample_ids[start : start + batch_size]),
        }
        metric.update(predictions, batch)
    return metric


def random_map(generator, size, most):
    """A map of blocks and single pixels: (map, number of segments), each with a pixel."""
    blocks = generator.integers(0, most + 1, (size[0] // 3 + 1, size[1] // 3 + 1))
    numbers = np.kron(blocks, np.ones((3, 3), dtype=np.int64))[: size[0], : size[1]]
    numbers = np.where(
        generator.random(size) < 0.05, generator.integers(0, most + 1, size), numbers
    )
    present = np.unique(numbers[numbers > 0])
    renamed = np.zeros(most + 1, dtype=np.int64)
    renamed[present] = 1 + generator.permutation(len(present))
    return renamed[numbers], len(present)


def random_images(count, seed):
    """Images with crowds, void, empty predictions, annotated areas that are off, empty segments."""
    generator, num_classes = np.random.default_rng(seed), len(IS_THING)
    images = []
    for _ in range(count):
        size = tuple(generator.integers(1, 16, 2))
        truth, number = random_map(generator, size, int(generator.integers(0, 8)))
        true_labels = generator.integers(0, num_classes, number)
        if generator.random() < 0.1:  # a segment that lost its pixels
            true_labels = np.append(true_labels, generator.integers(0, num_classes))
        crowd = np.flatnonzero(generator.random(len(true_labels)) < 0.3)
        areas = np.bincount(truth.ravel(), minlength=len(true_labels) + 1)[1:]
        areas = areas + (generator.random(len(areas)) < 0.1) * generator.integers(0, 5)
        guesses = []
        for _ in range(2):
            kind = generator.random()
            if kind < 0.15:
                guesses.append((np.zeros(size, dtype=np.int64), []))
                continue
            predicted, number = random_map(generator, size, int(generator.integers(0, 8)))
            labels = generator.integers(0, num_classes, number)
            if kind < 0.7:  # the truth, shifted, with some wrong classes
                predicted = np.roll(truth, generator.integers(0, 2, 2), axis=(0, 1))
                present = np.unique(predicted[predicted > 0])
                labels = np.where(
                    generator.random(len(present)) < 0.2,
                    generator.integers(0, num_classes, len(present)),
                    true_labels[present - 1],
                )
                predicted = np.where(predicted > 0, np.searchsorted(present, predicted) + 1, 0)
            guesses.append((predicted, labels))
        images.append(
            image(
                truth,
                true_labels,
                *guesses[0],
                crowd=crowd,
                areas=areas,
                loss=float(generator.random()),
                half=guesses[1],
            )
        )
    return images


def slow_counts(truth_map, segments, predicted_map, labels):
    """panopticapi in dictionaries: {class: [iou, tp, fp, fn]}.

    segments: {number: (class, is crowd, area)} of the ground truth, labels: {number: class}.
    """
    common, areas, stats = {}, {}, {}
    for g, p in zip(truth_map.ravel().tolist(), predicted_map.ravel().tolist(), strict=True):
        common[g, p] = common.get((g, p), 0) + 1
        areas[p] = areas.get(p, 0) + 1
    matched_truth, matched = set(), set()

    def add(label, position, value=1):
        stats.setdefault(label, [0.0, 0, 0, 0])[position] += value

    for (g, p), intersection in sorted(common.items()):
        if g not in segments or p not in labels or segments[g][1] or segments[g][0] != labels[p]:
            continue
        union = areas[p] + segments[g][2] - intersection - common.get((0, p), 0)
        if intersection / union > 0.5:
            add(labels[p], 0, intersection / union)
            add(labels[p], 1)
            matched_truth.add(g)
            matched.add(p)
    crowds = {}
    for g, (label, is_crowd, _) in segments.items():
        if is_crowd:
            crowds[label] = g
        elif g not in matched_truth:
            add(label, 3)
    for p, label in labels.items():
        ignored = common.get((0, p), 0) + common.get((crowds.get(label), p), 0)
        if p not in matched and ignored / areas[p] <= 0.5:
            add(label, 2)
    return stats


def slow_image(one, key="prediction"):
    truth = one["ground_truth"]
    segments = zip(
        truth["labels"].tolist(), truth["crowd"].tolist(), truth["areas"].tolist(), strict=True
    )
    predicted, labels = one[key]
    return slow_counts(
        truth["segment_map"].numpy(),
        dict(enumerate(segments, 1)),
        predicted.numpy(),
        dict(enumerate(labels.tolist(), 1)),
    )


def slow_totals(images, key="prediction"):
    totals = {}
    for one in images:
        for label, counts in slow_image(one, key).items():
            before = totals.get(label, [0.0, 0, 0, 0])
            totals[label] = [a + b for a, b in zip(before, counts, strict=True)]
    return totals


def slow_quality(totals, classes):
    """(PQ, SQ, RQ), means over those of the classes that have a segment."""
    rows = []
    for label in classes:
        iou, tp, fp, fn = totals.get(label, [0.0, 0, 0, 0])
        if tp + fp + fn:
            half = tp + fp / 2 + fn / 2
            rows.append((iou / half, iou / tp if tp else 0.0, tp / half))
    return tuple(np.mean(rows, axis=0)) if rows else (math.nan,) * 3


def slow_scores(images, is_thing=IS_THING):
    classes, totals = range(len(is_thing)), slow_totals(images)
    scores = {}
    for suffix, group in (
        ("", classes),
        ("_things", [label for label in classes if is_thing[label]]),
        ("_stuff", [label for label in classes if not is_thing[label]]),
    ):
        quality = slow_quality(totals, group)
        scores |= {
            name + suffix: one for name, one in zip(("pq", "sq", "rq"), quality, strict=True)
        }
    scores["pq_at_half"] = slow_quality(slow_totals(images, "half"), classes)[0]
    scores["val_loss"] = float(np.mean([one["loss"] for one in images])) if images else math.nan
    return scores


def gold_truth():
    """(images of panopticapi's sample: (map of ids, segments_info), {category id: is thing})."""
    content = json.loads((GOLD / "panoptic_examples.json").read_text())
    images = []
    for annotation in content["annotations"]:
        with Image.open(GOLD / "panoptic_examples" / annotation["file_name"]) as file:
            rgb = np.asarray(file.convert("RGB"), dtype=np.int64)
        images.append((rgb @ [1, 256, 65536], annotation["segments_info"]))
    return images, {entry["id"]: bool(entry["isthing"]) for entry in content["categories"]}


def segments_of(info):
    return {entry["id"]: entry["category_id"] for entry in info}


def gold_prediction(rule, index, ids, info):
    """Derive the prediction of expected.json: (map of ids, {id: category})."""
    ids, labels = ids.copy(), segments_of(info)
    crowds = [entry for entry in info if entry["iscrowd"]]
    name = rule.split(":")[0]
    if name == "roll":
        ids = np.roll(ids, (3, 5), (0, 1))
    elif name == "small":
        for number, size in zip(*np.unique(ids, return_counts=True), strict=True):
            ids[ids == number] = 0 if size < 1000 else number
        ids = np.roll(ids, 2, 1)
    elif name == "horse":
        persons = sorted(
            entry["id"] for entry in info if entry["category_id"] == 1 and not entry["iscrowd"]
        )
        labels |= dict.fromkeys(persons[::2], 19)
    elif name == "split":
        columns = np.arange(ids.shape[1]) < ids.shape[1] * 3 // 4
        ids[(ids == 2330219) & columns] = 9
        labels[9] = 184
    elif name == "fill":
        ids[ids == 0], labels[7] = 7, 187
    elif name == "stripes":
        for position, entry in enumerate(crowds):
            even = np.arange(ids.shape[1]) % 2 == 0
            ids[(ids == entry["id"]) & even] = 11 + position
            labels[11 + position] = entry["category_id"]
    elif name == "crowd wrong":
        labels |= dict.fromkeys([entry["id"] for entry in crowds], 3)
    elif name == "swallow":
        ids[ids == 0] = (4325578, 3937500)[index]
    elif name == "join":
        ids[ids == (4260062, 5119213)[index]] = 3937500
    elif name == "no crowd":
        for entry in crowds:
            ids[ids == entry["id"]] = 0
    else:
        assert name == "same", rule
    return ids, labels


def consecutive(ids, numbers):
    """Rename ids to the 1-based positions in `numbers`; others to 0."""
    renamed = np.zeros(ids.shape, dtype=np.int64)
    for position, number in enumerate(numbers, 1):
        renamed[ids == number] = position
    return renamed


def gold_image(rule, index, ids, info, label_of):
    predicted, labels = gold_prediction(rule, index, ids, info)
    present = [number for number in labels if (predicted == number).any()]
    return image(
        consecutive(ids, [entry["id"] for entry in info]),
        [label_of[entry["category_id"]] for entry in info],
        consecutive(predicted, present),
        [label_of[labels[number]] for number in present],
        crowd=[i for i, entry in enumerate(info) if entry["iscrowd"]],
        areas=[entry["area"] for entry in info],
    )


@needs_gold
def test_the_sample_of_panopticapi_scores_as_measured_there():
    images, is_thing = gold_truth()
    label_of = {category: label for label, category in enumerate(sorted(is_thing))}
    things = [is_thing[category] for category in sorted(is_thing)]
    expected = json.loads((GOLD / "expected.json").read_text())
    assert len(expected) >= 9
    for rule, result in expected.items():
        derived = [gold_image(rule, i, *one, label_of) for i, one in enumerate(images)]
        metric = measured(derived, things)
        scores = metric.compute()
        for group, suffix in (("All", ""), ("Things", "_things"), ("Stuff", "_stuff")):
            for key in ("pq", "sq", "rq"):
                assert round(scores[key + suffix], 9) == result["scores"][group][key], (rule, key)
        state = metric.state()
        for category, counts in result["per_class [iou, tp, fp, fn]"].items():
            label = label_of[int(category)]
            ours = [state[name][:, label].sum() for name in ("iou", "tp", "fp", "fn")]
            assert [round(float(ours[0]), 6), *ours[1:]] == counts, (rule, category)
        assert (~np.isnan(metric.per_class()["PQ"])).sum() == result["scores"]["All"]["n"]


@settings(max_examples=60, deadline=None)
@given(count=st.integers(0, 5), seed=st.integers(0, 100_000))
def test_random_maps_score_as_in_dictionaries(count, seed):
    images = random_images(count, seed)
    ours, theirs = measured(images).compute(), slow_scores(images)
    if not count:
        del theirs["pq_at_half"], theirs["val_loss"]  # nobody gave any
    assert set(ours) == set(theirs)
    assert ours == pytest.approx(theirs, abs=1e-12, nan_ok=True)
    assert all(isinstance(score, float) for score in ours.values())


def test_random_maps_match_often_enough_to_test_something():
    images = [one for seed in range(40) for one in random_images(5, seed)]
    tp, fp, fn = np.sum(list(slow_totals(images).values()), axis=0)[1:]
    assert min(tp, fp, fn) > 50


@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(1, 9), seed=st.integers(0, 10_000), shards=st.integers(1, 3), data=st.data()
)
def test_any_sharding_gives_the_last_bit_of_the_whole(count, seed, shards, data):
    images = random_images(count, seed)
    sample_ids = random.Random(seed).sample(range(1000), count)
    owners = data.draw(st.lists(st.integers(0, shards - 1), min_size=count, max_size=count))
    whole, merged = measured(images, sample_ids=sample_ids), PanopticQualityMetric(IS_THING)
    shares = [[i for i in range(count) if owners[i] == owner] for owner in range(shards)]
    parts = [
        measured([images[i] for i in share], sample_ids=[sample_ids[i] for i in share]).state()
        for share in reversed(shares)
    ]
    merged.merge(parts)
    assert len(merged) == count
    for ours, theirs in (
        (merged.state(), whole.state()),
        (merged.per_class(), whole.per_class()),
        (merged.per_image(), whole.per_image()),
        (merged.compute(), whole.compute()),
    ):
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[key], theirs[key], equal_nan=True) for key in theirs)
    assert np.array_equal(merged.confusion(), whole.confusion())
    picks = np.random.default_rng(seed).integers(0, count, count)
    assert np.array_equal(
        list(merged.compute(picks).values()), list(whole.compute(picks).values()), equal_nan=True
    )


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 6), seed=st.integers(0, 10_000), data=st.data())
def test_picks_score_as_repeated_images(count, seed, data):
    images = random_images(count, seed)
    picks = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=2 * count))
    repeated = measured([images[i] for i in picks]).compute()
    assert measured(images).compute(picks) == pytest.approx(repeated, abs=1e-12, nan_ok=True)


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 6), seed=st.integers(0, 10_000))
def test_the_quality_of_an_image_is_that_of_a_dataset_of_it_alone(count, seed):
    images = random_images(count, seed)
    metric = measured(images, sample_ids=range(count, 0, -1))
    table = metric.per_image()
    assert table["sample_ids"].tolist() == list(range(1, count + 1))
    assert table["losses"].tolist() == [one["loss"] for one in reversed(images)]
    alone = [metric.compute([i])["pq"] for i in range(count)]
    assert np.allclose(table["pq"], alone, atol=1e-12, equal_nan=True)


def test_an_example_done_on_paper():
    truth = [[1, 1, 1, 1, 2, 2], [3, 3, 3, 3, 0, 0]]  # person, person, sky
    predicted = [[1, 1, 1, 2, 2, 2], [3, 3, 3, 3, 3, 0]]  # IoU 3/4, 2/3, 4/4: void is left out
    metric = measured([image(truth, [0, 0, 2], predicted, [0, 0, 2], loss=2.0)])
    scores = metric.compute()
    assert scores["pq_things"] == pytest.approx((3 / 4 + 2 / 3) / 2)
    assert scores["pq_stuff"] == scores["rq"] == 1 and scores["val_loss"] == 2
    assert scores["pq"] == pytest.approx((scores["pq_things"] + 1) / 2)
    table = metric.per_class()
    assert table["segments"].tolist() == [2, 0, 1, 0, 0] and table["segments"].dtype == np.int64
    assert np.isnan(table["PQ"]).tolist() == [False, True, False, True, True]


def test_half_an_overlap_is_no_match():
    half = image([[1, 1, 1, 0]], [0], [[1, 1, 0, 0]], [0], areas=[4])
    assert measured([half]).compute()["pq"] == 0
    assert measured([half]).state()["fn"].sum() == measured([half]).state()["fp"].sum() == 1
    more = image([[1, 1, 1, 0]], [0], [[1, 1, 0, 0]], [0], areas=[3])
    assert measured([more]).compute()["pq"] == pytest.approx(2 / 3)


def test_the_annotated_area_counts_for_the_ground_truth():
    truth = image([[1, 1, 0, 0]], [0], [[1, 1, 0, 0]], [0], areas=[3])
    assert measured([truth]).compute()["pq"] == pytest.approx(2 / 3)
    too_small = image([[1, 1, 0, 0]], [0], [[1, 1, 0, 0]], [0], areas=[0])
    assert measured([too_small]).compute()["pq"] == 1


def test_a_segment_without_a_class_of_its_own_is_missed_and_invented():
    confused = measured([image([[1, 1, 1, 2]], [0, 3], [[1, 1, 1, 2]], [1, 3])])
    scores = confused.compute()
    assert scores["pq"] == pytest.approx(1 / 3) and scores["pq_things"] == 0
    assert scores["sq_things"] == 0 and scores["rq_stuff"] == 1
    expected = np.zeros((6, 6), dtype=np.int64)
    expected[0, 1] = expected[3, 3] = 1  # matched whatever the class
    assert confused.confusion().tolist() == expected.tolist()


def test_the_confusion_counts_missed_and_invented_segments_and_no_crowd():
    truth, predicted = [[1, 1, 2, 2, 3, 3, 3]], [[1, 1, 0, 2, 3, 3, 4]]
    one = image(truth, [0, 1, 2], predicted, [0, 4, 2, 2])
    expected = np.zeros((6, 6), dtype=np.int64)
    expected[0, 0] = expected[1, 5] = expected[5, 4] = expected[2, 2] = expected[5, 2] = 1
    assert measured([one, one]).confusion().tolist() == (2 * expected).tolist()
    crowded = image(truth, [0, 1, 2], predicted, [0, 4, 2, 2], crowd=[1, 2])
    expected = np.zeros((6, 6), dtype=np.int64)
    expected[0, 0] = expected[5, 4] = 1  # the crowd is of another class
    assert measured([crowded]).confusion().tolist() == expected.tolist()


def test_a_crowd_is_neither_required_nor_a_mistake():
    truth, predicted = [[1, 1, 1, 1, 2, 2]], [[1, 1, 2, 0, 3, 3]]
    metric = measured([image(truth, [0, 1], predicted, [0, 0, 1], crowd=[0])])
    assert metric.compute()["pq"] == 1 and math.isnan(metric.per_class()["PQ"][0])
    assert metric.per_class()["segments"].tolist() == [0, 1, 0, 0, 0]


def test_of_several_crowds_of_a_class_the_last_counts():
    truth, predicted = [[1, 1, 2, 2, 3]], [[1, 1, 2, 2, 3]]
    counts = measured([image(truth, [0, 0, 1], predicted, [0, 0, 1], crowd=[0, 1])]).state()
    assert counts["fp"].tolist() == [[1, 0, 0, 0, 0]] and counts["tp"].tolist() == [[0, 1, 0, 0, 0]]


def test_exactly_half_in_void_is_still_a_mistake():
    half, more = [[0, 0, 1, 1, 2, 2]], [[0, 0, 0, 1, 2, 2]]
    for truth, mistakes in ((half, 1), (more, 0)):
        state = measured([image(truth, [1, 2], [[1, 1, 1, 1, 2, 2]], [0, 2])]).state()
        assert state["fp"].sum() == mistakes


def test_an_image_without_a_prediction_misses_all_its_segments():
    nothing = image([[1, 2, 2]], [0, 2], [[0, 0, 0]], [])
    metric = measured([nothing])
    assert metric.compute()["pq"] == metric.compute()["sq"] == 0
    assert metric.state()["fn"].tolist() == [[1, 0, 1, 0, 0]]
    assert metric.confusion()[:, 5].tolist() == [1, 0, 1, 0, 0, 0]
    assert metric.per_image()["pq"].tolist() == [0]
    empty = measured([image([[0, 0]], [], [[0, 0]], [])])
    assert math.isnan(empty.compute()["pq"]) and np.isnan(empty.per_image()["pq"]).all()


def test_a_ground_truth_segment_without_pixels_is_missed():
    state = measured([image([[1, 1]], [0, 1], [[1, 1]], [0], areas=[2, 4])]).state()
    assert state["tp"].sum() == 1 and state["fn"].tolist() == [[0, 1, 0, 0, 0]]


@pytest.mark.filterwarnings("error")
def test_without_a_stuff_class_or_images_the_means_are_nan():
    images = random_images(4, 3)
    for things, missing in (((True,) * 5, "_stuff"), ((False,) * 5, "_things")):
        scores = measured(images, things).compute()
        other = {"_stuff": "_things", "_things": "_stuff"}[missing]
        for key in ("pq", "sq", "rq"):
            assert math.isnan(scores[key + missing]) and scores[key] == scores[key + other]
    empty = PanopticQualityMetric(IS_THING)
    assert len(empty) == 0 and len(empty.compute()) == 9
    assert all(math.isnan(score) for score in empty.compute().values())
    assert empty.per_image()["pq"].shape == (0,) and empty.confusion().sum() == 0


def test_scores_that_were_not_given_for_every_image_are_left_out():
    one = image([[1]], [0], [[1]], [0])
    half = image([[1]], [0], [[1]], [0], half=([[0]], []), loss=1.0)
    assert measured([one]).compute().keys() == measured([one, half], batch_size=1).compute().keys()
    scores = measured([half]).compute()
    assert scores["pq"] == 1 and scores["pq_at_half"] == 0 and scores["val_loss"] == 1
    whole = PanopticQualityMetric(IS_THING)
    whole.merge([PanopticQualityMetric(IS_THING).state(), measured([half]).state()])
    assert whole.compute() == pytest.approx(scores, nan_ok=True)  # a rank without images gives none


def test_merging_replaces_what_was_there():
    metric = measured(random_images(6, 1))
    before, confusion = metric.compute(), metric.confusion()
    metric.merge([metric.state()])
    assert metric.compute() == pytest.approx(before, abs=0, nan_ok=True)
    assert np.array_equal(metric.confusion(), confusion)
    metric.merge([])
    assert len(metric) == 0 and metric.confusion().sum() == 0


def test_the_state_is_numpy_arrays_alone():
    state = measured(random_images(4, 0)).state()
    assert all(
        isinstance(values, np.ndarray) and values.dtype != object for values in state.values()
    )
    assert state["iou"].dtype == np.float64
    assert all(state[name].dtype == np.int32 for name in ("tp", "fp", "fn", "half_tp"))


def test_maps_and_labels_that_do_not_belong_together_are_refused():
    for truth, labels, predicted, predicted_labels, message in (
        ([[1, 1]], [0], [[1]], [0], r"expected shape \(1, 2\), got \(1, 1\)"),
        ([[1, 1]], [0], [[1, 2]], [0], "sample 7, prediction: .* outside of 0 to 1"),
        ([[1, 1]], [0], [[1, -1]], [0], "sample 7, prediction: .* outside of 0 to 1"),
        ([[1, 1]], [0], [[1, 1]], [0, 3], "sample 7, prediction: segment 2 of class 3 has no pix"),
        ([[1, 1]], [0], [[1, 1]], [5], "sample 7, prediction: labels: expected 0 to 4, got 5"),
        ([[1, 1]], [-1], [[1, 1]], [0], "sample 7, ground truth: labels: expected 0 to 4, got -1"),
    ):
        one = image(truth, labels, predicted, predicted_labels)
        with pytest.raises(ValueError, match=message):
            measured([one], sample_ids=[7])
    one = image([[1, 1]], [0], [[1, 1]], [0])
    one["ground_truth"]["segment_map"][0, 0] = 2
    with pytest.raises(ValueError, match=r"sample 7, ground truth: .* outside of 0 to 1"):
        measured([one], sample_ids=[7])


def test_three_hundred_segments_are_counted():
    numbers = np.arange(400).reshape(20, 20) % 301
    labels = np.arange(300) % 5
    scores = measured([image(numbers, labels, numbers, labels)]).compute()
    assert scores["pq"] == 1
