"""Scores of classification: equal to brute force, and to the bit for any distribution."""

import math
import random
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from visionloop.metrics.classification import ClassificationMetric


def evidence(number_of_images, num_classes, seed, ties=False):
    """Random (logits, labels, sample ids); ties: logits from few values, so that many are equal."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(number_of_images, num_classes, generator=generator)
    logits = logits.round() if ties else logits
    labels = torch.randint(num_classes, (number_of_images,), generator=generator)
    return (
        logits,
        labels,
        torch.randperm(10 * number_of_images, generator=generator)[:number_of_images],
    )


def measured(logits, labels, sample_ids, rows=None):
    metric = ClassificationMetric(logits.shape[1])
    rows = torch.arange(len(labels)) if rows is None else torch.as_tensor(rows, dtype=torch.int64)
    if len(rows):
        metric.update(
            {"logits": logits[rows]}, {"labels": labels[rows], "sample_ids": sample_ids[rows]}
        )
    return metric


def by_hand(logits, labels):
    """The scores in plain Python, image by image."""
    hits, top5, losses, of_class = 0, 0, [], {}
    for row, label in zip(logits.double().tolist(), labels.tolist(), strict=True):
        order = sorted(range(len(row)), key=lambda k: (-row[k], k))
        hits += order[0] == label
        top5 += label in order[:5]
        of_class.setdefault(label, []).append(order[0] == label)
        largest = max(row)
        losses.append(
            largest + math.log(sum(math.exp(value - largest) for value in row)) - row[label]
        )
    scores = {"accuracy": hits / len(labels), "val_loss": sum(losses) / len(labels)}
    scores["mean_class_accuracy"] = sum(
        sum(hits_of) / len(hits_of) for hits_of in of_class.values()
    ) / len(of_class)
    return scores | ({"accuracy_top5": top5 / len(labels)} if logits.shape[1] >= 5 else {})


@given(
    count=st.integers(1, 40),
    num_classes=st.integers(2, 12),
    seed=st.integers(0, 1000),
    ties=st.booleans(),
)
def test_scores_are_those_of_brute_force(count, num_classes, seed, ties):
    logits, labels, sample_ids = evidence(count, num_classes, seed, ties)
    assert measured(logits, labels, sample_ids).compute() == pytest.approx(
        by_hand(logits, labels), abs=1e-12
    )


@given(
    count=st.integers(1, 40),
    seed=st.integers(0, 1000),
    owners=st.lists(st.integers(0, 3), min_size=40, max_size=40),
)
def test_any_sharding_gives_the_bits_of_the_whole(count, seed, owners):
    logits, labels, sample_ids = evidence(count, 7, seed)
    whole = measured(logits, labels, sample_ids)
    shards = [
        measured(logits, labels, sample_ids, [row for row in range(count) if owners[row] == owner])
        for owner in range(4)
    ]
    states = [shard.state() for shard in shards]
    random.Random(seed).shuffle(states)
    merged = ClassificationMetric(7)
    merged.merge(states)
    assert merged.compute() == whole.compute()
    assert np.array_equal(merged.confusion(), whole.confusion())
    assert all(
        np.array_equal(values, whole.state()[column]) for column, values in merged.state().items()
    )
    assert len(merged) == len(whole) == count


def test_merging_replaces_what_was_there():
    logits, labels, sample_ids = evidence(10, 3, 0)
    metric = measured(logits, labels, sample_ids)
    before = metric.compute()
    metric.merge([metric.state()])
    assert len(metric) == 10 and metric.compute() == before


def test_equal_logits_go_to_the_lowest_class():
    metric = measured(torch.zeros(7, 7), torch.arange(7), torch.arange(7))
    assert metric.confusion()[:, 0].tolist() == [1] * 7
    assert metric.compute()["accuracy"] == pytest.approx(1 / 7)
    assert metric.compute()["accuracy_top5"] == pytest.approx(5 / 7)


def test_a_nan_logit_never_wins_and_gives_a_nan_loss():
    logits = torch.zeros(2, 6)
    logits[:, 3] = float("nan")
    scores = measured(logits, torch.tensor([3, 0]), torch.arange(2)).compute()
    assert scores["accuracy"] == 0.5 and scores["accuracy_top5"] == 0.5
    assert math.isnan(scores["val_loss"])


def test_top5_is_left_out_below_five_classes():
    assert "accuracy_top5" not in measured(*evidence(5, 4, 0)).compute()
    assert "accuracy_top5" in measured(*evidence(5, 5, 0)).compute()


@given(count=st.integers(1, 30), seed=st.integers(0, 100), data=st.data())
def test_picked_images_score_as_if_they_were_all(count, seed, data):
    logits, labels, sample_ids = evidence(count, 6, seed)
    picks = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=50))
    in_order = torch.argsort(sample_ids)  # positions count in the order of sample ids
    chosen = in_order[torch.tensor(picks)]
    scores = measured(logits, labels, sample_ids).compute(np.array(picks))
    assert scores == pytest.approx(by_hand(logits[chosen], labels[chosen]), abs=1e-12)


def test_the_confusion_matrix_counts_true_by_predicted():
    logits, labels, sample_ids = evidence(200, 5, 3)
    metric = measured(logits, labels, sample_ids)
    expected = np.zeros((5, 5), dtype=np.int64)
    for row, label in zip(logits, labels, strict=True):
        expected[label, row.argmax()] += 1
    assert np.array_equal(metric.confusion(), expected) and metric.confusion().dtype == np.int64
    per_class = metric.per_class()
    assert np.array_equal(per_class["images"], expected.sum(1))
    assert np.allclose(per_class["accuracy"], np.diag(expected) / expected.sum(1))
    assert np.allclose(per_class["precision"], np.diag(expected) / expected.sum(0))
    assert metric.compute()["mean_class_accuracy"] == pytest.approx(per_class["accuracy"].mean())


def test_a_class_without_images_takes_no_part():
    logits = torch.eye(4)[torch.tensor([0, 1, 1])]
    metric = measured(logits, torch.tensor([0, 1, 3]), torch.arange(3))
    assert metric.compute()["mean_class_accuracy"] == pytest.approx(2 / 3)
    assert np.isnan(metric.per_class()["accuracy"][2]) and np.isnan(
        metric.per_class()["precision"][3]
    )


def test_the_majority_baseline_predicts_one_class():
    metric = measured(torch.zeros(10, 3), torch.tensor([1] * 6 + [0] * 3 + [2]), torch.arange(10))
    assert metric.majority_accuracy() == 0.6
    assert metric.majority_accuracy(majority_class=0) == 0.3


def test_every_image_has_its_loss_in_the_order_of_ids():
    logits, labels, _ = evidence(9, 4, 1)
    table = measured(logits, labels, torch.arange(9).flip(0)).per_image()
    assert table["sample_ids"].tolist() == list(range(9))
    expected = torch.nn.functional.cross_entropy(logits.double(), labels, reduction="none").flip(0)
    assert (
        table["losses"] == pytest.approx(expected.numpy()) and table["losses"].dtype == np.float64
    )


def test_without_images_every_score_is_nan():
    metric = ClassificationMetric(5)
    assert len(metric) == 0
    assert all(math.isnan(score) for score in metric.compute().values()) and math.isnan(
        metric.majority_accuracy()
    )
    assert metric.confusion().sum() == 0


def test_logits_of_another_width_are_refused():
    with pytest.raises(ValueError, match="expected shape"):
        ClassificationMetric(5).update(
            {"logits": torch.zeros(2, 4)},
            {"labels": torch.zeros(2).long(), "sample_ids": torch.arange(2)},
        )


def test_a_thousand_draws_of_a_thousand_images_take_less_than_a_second():
    metric = measured(*evidence(1000, 10, 0))
    generator = np.random.default_rng(0)
    started = time.process_time()
    for _ in range(1000):
        metric.compute(generator.integers(1000, size=1000))
    assert time.process_time() - started < 1
