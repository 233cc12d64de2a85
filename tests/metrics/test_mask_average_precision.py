"""Scores of instance segmentation: published numbers, pycocotools itself, and equal bits."""

import contextlib
import io
import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from visionloop.metrics.average_precision import Resampler
from visionloop.metrics.coco_evaluation import SCORE_KEYS
from visionloop.metrics.detection_confusion import count_confusion, mask_iou
from visionloop.metrics.mask_average_precision import MaskAveragePrecision

GOLD = Path(__file__).parents[2].parent / "shared" / "data" / "metrics-gold" / "coco-val2014-100"
RESULTS = GOLD / "instances_val2014_fakesegm100_results.json"
# cocoapi, results/val2014_fake_eval_res.txt
PUBLISHED = (0.320, 0.562, 0.299, 0.387, 0.310, 0.327, 0.268, 0.415, 0.417, 0.469, 0.377, 0.381)
# pycocotools 2.0.11
MEASURED = (
    0.319545276,
    0.562288397,
    0.298926534,
    0.387374032,
    0.310182724,
    0.326933907,
    0.268229723,
    0.415448681,
    0.416839499,
    0.469449862,
    0.376759227,
    0.381471510,
)


def encoded(mask):
    """The compressed run lengths of a mask [H, W]."""
    return coco_mask.encode(np.asfortranarray(np.asarray(mask, dtype=np.uint8)))["counts"]


def image(size, ground_truth=(), detections=(), *, crowd=(), areas=None, loss=None):
    """Return one image.

    ground_truth: (label, rle) each; detections: (label, score, rle) each; crowd: positions of the
    crowd masks; areas: of the ground truth, by default those of the masks.
    """
    rles = [rle for _, rle in ground_truth]
    areas = [rle_area(size, rle) for rle in rles] if areas is None else areas
    return {
        "size": size,
        "ground_truth": {
            "rles": rles,
            "labels": np.array([label for label, _ in ground_truth], dtype=np.int64),
            "crowd": np.isin(np.arange(len(rles)), list(crowd)),
            "areas": np.array(areas, dtype=np.float64),
        },
        "rles": [rle for *_, rle in detections],
        "labels": torch.tensor([label for label, *_ in detections], dtype=torch.int64),
        "scores": torch.tensor([score for _, score, _ in detections], dtype=torch.float64),
        "loss": loss,
    }


def rle_area(size, rle):
    return float(coco_mask.area({"size": list(size), "counts": rle}))


def box(size, x, y, w, h):
    mask = np.zeros(size)
    mask[y : y + h, x : x + w] = 1
    return encoded(mask)


def measured(images, num_classes, sample_ids=None, backend="pycocotools", batch_size=2):
    metric = MaskAveragePrecision(num_classes, backend)
    sample_ids = list(range(len(images))) if sample_ids is None else list(sample_ids)
    for start in range(0, len(images), batch_size):
        here = images[start : start + batch_size]
        predictions = {key: [one[key] for one in here] for key in ("rles", "labels", "scores")}
        if here[0]["loss"] is not None:
            predictions["losses"] = torch.tensor([one["loss"] for one in here], dtype=torch.float64)
        batch = {
            "ground_truth": [one["ground_truth"] for one in here],
            "sample_ids": torch.tensor(sample_ids[start : start + batch_size]),
            "sizes": torch.tensor([one["size"] for one in here]),
        }
        metric.update(predictions, batch)
    return metric


def random_mask(generator, size):
    """A rectangle with holes, or nothing."""
    top, left = (generator.integers(0, side) for side in size)
    mask = np.zeros(size, dtype=bool)
    mask[top : top + generator.integers(1, 30), left : left + generator.integers(1, 30)] = True
    return mask & (generator.random(size) < 0.97) & (generator.random() < 0.97)


def random_images(count, num_classes, seed, detections=12):
    """Images of several sizes with overlaps, crowds, without masks; other scores in each image."""
    generator = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        size = tuple(generator.integers(20, 60, 2).tolist())
        truth = [
            (int(generator.integers(0, num_classes)), random_mask(generator, size))
            for _ in range(generator.integers(0, 6))
        ]
        scores = generator.permutation(np.arange(1, 3 * detections)) / (3 * detections)
        guesses = []
        for i in range(detections if truth and generator.random() < 0.9 else 0):
            label, mask = truth[generator.integers(0, len(truth))]
            moved = np.roll(mask, generator.integers(-2, 3, 2), (0, 1))
            label = label if generator.random() < 0.8 else int(generator.integers(0, num_classes))
            guesses.append((label, float(scores[i]), encoded(moved)))
        images.append(
            image(
                size,
                [(label, encoded(mask)) for label, mask in truth],
                guesses,
                crowd=np.flatnonzero(generator.random(len(truth)) < 0.15),
                areas=generator.uniform(1, 12_000, len(truth)),
                loss=float(generator.random()),
            )
        )
    return images


def coco_scores(images, num_classes):
    """The twelve numbers of pycocotools, called as in its demo."""
    truth, results = [], []
    for number, one in enumerate(images):
        objects = one["ground_truth"]
        height, width = one["size"]
        for i, rle in enumerate(objects["rles"]):
            truth.append(
                {
                    "id": len(truth) + 1,
                    "image_id": number,
                    "category_id": int(objects["labels"][i]),
                    "segmentation": {"size": [height, width], "counts": rle.decode()},
                    "area": float(objects["areas"][i]),
                    "iscrowd": int(objects["crowd"][i]),
                }
            )
        for rle, label, score in zip(
            one["rles"], one["labels"].tolist(), one["scores"].tolist(), strict=True
        ):
            results.append(
                {
                    "image_id": number,
                    "category_id": label,
                    "segmentation": {"size": [height, width], "counts": rle.decode()},
                    "score": score,
                }
            )
    coco = COCO()
    coco.dataset = {
        "images": [
            {"id": i, "height": one["size"][0], "width": one["size"][1]}
            for i, one in enumerate(images)
        ],
        "categories": [{"id": label} for label in range(num_classes)],
        "annotations": truth,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        evaluator = COCOeval(coco, coco.loadRes(results), "segm")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return [math.nan if score == -1 else float(score) for score in evaluator.stats]


def same(scores, others, tolerance=1e-12):
    return scores == pytest.approx({key: others[key] for key in scores}, abs=tolerance, nan_ok=True)


def coco_sample():
    """The 100 COCO images with the sample segmentations of the COCO API."""
    content = json.loads((GOLD / "instances_val2014_100.json").read_text())
    results = json.loads(RESULTS.read_text())
    categories = sorted(category["id"] for category in content["categories"])
    label_of = {category: label for label, category in enumerate(categories)}
    images = []
    for entry in content["images"]:
        size = (entry["height"], entry["width"])
        here = [one for one in content["annotations"] if one["image_id"] == entry["id"]]
        truth = []
        for one in here:
            rles = coco_mask.frPyObjects(one["segmentation"], *size)
            rle = coco_mask.merge(rles) if isinstance(rles, list) else rles
            truth.append((label_of[one["category_id"]], rle["counts"]))
        guesses = [
            (
                label_of[one["category_id"]],
                one["score"],
                one["segmentation"]["counts"].encode(),
            )
            for one in results
            if one["image_id"] == entry["id"]
        ]
        crowd = [i for i, one in enumerate(here) if one["iscrowd"]]
        areas = [one["area"] for one in here]
        images.append(image(size, truth, guesses, crowd=crowd, areas=areas))
    return images, len(label_of), [entry["id"] for entry in content["images"]]


@pytest.mark.skipif(not RESULTS.is_file(), reason="the published examples are not here")
def test_the_coco_sample_scores_as_published():
    images, num_classes, sample_ids = coco_sample()
    metric = measured(images, num_classes, sample_ids)
    scores = metric.compute()
    assert tuple(scores) == SCORE_KEYS
    assert [round(score, 9) for score in scores.values()] == list(MEASURED)
    assert [round(score, 3) for score in scores.values()] == pytest.approx(PUBLISHED, abs=0.0011)
    assert same(metric.compute(np.arange(len(images))), scores)
    per_class = metric.per_class()
    assert np.nanmean(per_class["AP"]) == pytest.approx(scores["mAP"])
    assert per_class["segments"].sum() == sum(
        int((~one["ground_truth"]["crowd"]).sum()) for one in images
    )


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 8), num_classes=st.integers(1, 4), seed=st.integers(0, 10_000))
def test_random_masks_score_as_in_pycocotools(count, num_classes, seed):
    images = random_images(count, num_classes, seed)
    if not any(one["rles"] for one in images):
        return  # pycocotools reads no empty list of results
    metric = measured(images, num_classes)
    scores = [metric.compute()[key] for key in SCORE_KEYS]
    assert np.array_equal(scores, coco_scores(images, num_classes), equal_nan=True)
    assert same(metric.compute(np.arange(count)), metric.compute())


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 6), seed=st.integers(0, 10_000), data=st.data())
def test_repeated_picks_score_as_repeated_images(count, seed, data):
    images = random_images(count, 3, seed)
    picks = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=2 * count))
    repeated = measured([images[i] for i in sorted(picks)], 3)
    assert same(measured(images, 3).compute(picks), repeated.compute())


@settings(max_examples=15, deadline=None)
@given(count=st.integers(1, 9), seed=st.integers(0, 1000), shards=st.integers(1, 3), data=st.data())
def test_any_sharding_gives_the_last_bit_of_the_whole(count, seed, shards, data):
    images, sample_ids = (
        random_images(count, 3, seed),
        random.Random(seed).sample(range(1000), count),
    )
    owners = data.draw(st.lists(st.integers(0, shards - 1), min_size=count, max_size=count))
    whole, merged = measured(images, 3, sample_ids), MaskAveragePrecision(3)
    shares = [[i for i in range(count) if owners[i] == owner] for owner in range(shards)]
    merged.merge(
        [
            measured([images[i] for i in share], 3, [sample_ids[i] for i in share]).state()
            for share in reversed(shares)
        ]
    )
    assert len(merged) == count
    ours, theirs = merged.state(), whole.state()
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[column], theirs[column]) for column in theirs)
    picks = np.random.default_rng(seed).integers(0, count, count)
    for chosen in (None, picks):
        assert np.array_equal(
            list(merged.compute(chosen).values()),
            list(whole.compute(chosen).values()),
            equal_nan=True,
        )
    assert np.array_equal(count_confusion(ours, 3, "segm"), count_confusion(theirs, 3, "segm"))


def test_the_state_keeps_every_mask_byte_for_byte():
    images = random_images(5, 3, 7)
    state = measured(images, 3, [4, 2, 0, 3, 1]).state()
    in_order = [images[i] for i in (2, 4, 1, 3, 0)]
    assert state["rles"].tobytes() == b"".join(b"".join(one["rles"]) for one in in_order)
    assert state["rle_lengths"].tolist() == [len(rle) for one in in_order for rle in one["rles"]]
    assert state["sizes"].tolist() == [list(one["size"]) for one in in_order]
    truth = [one["ground_truth"] for one in in_order]
    assert state["ground_truth_rles"].tobytes() == b"".join(b"".join(one["rles"]) for one in truth)
    assert all(
        isinstance(values, np.ndarray) and values.dtype != object for values in state.values()
    )


def test_resampling_matches_no_mask_again(monkeypatch):
    metric = measured(random_images(6, 2, 3), 2)
    scores = metric.compute()
    monkeypatch.setattr(coco_mask, "iou", None)
    monkeypatch.setattr(Resampler, "__init__", None)
    assert same(metric.compute(np.arange(6)), scores)
    assert metric.curves()["precision"].shape == (2, 101)


def test_the_area_is_that_of_the_annotation_and_of_the_predicted_mask():
    size = (120, 120)
    object_, hit = (0, box(size, 0, 0, 100, 100)), (0, 0.9, box(size, 0, 0, 100, 100))
    by_mask = measured([image(size, [object_], [hit])], 1).compute()
    assert by_mask["mAP_large"] == pytest.approx(1) and math.isnan(by_mask["mAP_small"])
    by_area = measured([image(size, [object_], [hit], areas=[900])], 1).compute()
    assert by_area["AR_small"] == pytest.approx(1) and math.isnan(by_area["AR_large"])
    small = (0, 0.95, box(size, 110, 110, 5, 5))  # ignored among large objects
    scores = measured([image(size, [object_], [hit, small])], 1).compute()
    assert scores["mAP"] == pytest.approx(0.5) and scores["mAP_large"] == pytest.approx(1)


def test_a_crowd_is_neither_required_nor_a_mistake():
    size = (60, 60)
    crowd, person = (0, box(size, 0, 0, 30, 30)), (0, box(size, 40, 0, 10, 10))
    inside, hit = (0, 0.99, box(size, 5, 5, 8, 8)), (0, 0.5, box(size, 40, 0, 10, 10))
    metric = measured([image(size, [crowd, person], [inside, hit], crowd=[0])], 1)
    assert metric.compute()["mAP"] == metric.compute([0])["mAP"] == pytest.approx(1)
    assert metric.per_class()["segments"].tolist() == [1]
    assert count_confusion(metric.state(), 1, "segm").tolist() == [[1, 0], [0, 0]]


def test_an_image_without_detections_counts():
    size = (40, 40)
    object_, hit = (0, box(size, 5, 5, 20, 20)), (0, 0.9, box(size, 5, 5, 20, 20))
    for images in (
        [image(size, [object_], [hit]), image(size, [object_])],
        [image(size, [object_]), image(size, [object_], [hit])],
    ):
        metric = measured(images, 1)
        assert metric.compute()["AR100"] == 0.5
        assert metric.compute([0, 1])["mAP"] == pytest.approx(51 / 101)
    nothing = measured([image(size, [object_])], 1)
    assert nothing.compute()["mAP"] == nothing.compute([0])["mAP"] == 0
    assert count_confusion(nothing.state(), 1, "segm").tolist() == [[0, 1], [0, 0]]


@pytest.mark.filterwarnings("error")
def test_without_images_or_ground_truth_every_score_is_nan():
    metric = MaskAveragePrecision(3)
    assert len(metric) == 0 and all(math.isnan(score) for score in metric.compute().values())
    assert np.isnan(metric.per_class()["AP"]).all()
    assert count_confusion(metric.state(), 3, "segm").sum() == 0
    size = (20, 20)
    unlabeled = measured([image(size, [], [(0, 0.9, box(size, 0, 0, 9, 9))], loss=0.0)], 3)
    assert all(math.isnan(unlabeled.compute()[key]) for key in SCORE_KEYS)
    empty = measured([image(size)], 3)
    assert all(math.isnan(empty.compute()[key]) for key in SCORE_KEYS)


def test_the_validation_loss_is_a_mean_over_images():
    images = random_images(3, 2, 0)
    for one, loss in zip(images, (1.0, 2.0, 6.0), strict=True):
        one["loss"] = loss
    metric = measured(images, 2, [5, 9, 1])
    assert metric.compute()["val_loss"] == 3 and metric.compute([0, 0, 1])["val_loss"] == 13 / 3
    table = metric.per_image()
    assert table["sample_ids"].tolist() == [1, 5, 9] and table["losses"].tolist() == [6, 1, 2]
    without = measured([{**one, "loss": None} for one in images], 2)
    assert "val_loss" not in without.compute() and np.isnan(without.per_image()["losses"]).all()


def test_masks_count_in_the_confusion_as_boxes_would():
    size = (80, 80)
    truth = [
        (0, box(size, 0, 0, 20, 20)),
        (1, box(size, 40, 0, 20, 20)),
        (1, box(size, 0, 40, 9, 9)),
    ]
    guesses = [
        (0, 0.9, box(size, 1, 0, 20, 20)),  # right
        (0, 0.8, box(size, 40, 1, 20, 20)),  # class 1 called 0
        (1, 0.7, box(size, 60, 60, 10, 10)),  # extra
        (1, 0.3, box(size, 0, 40, 9, 9)),  # too low a score: missed
    ]
    counts = count_confusion(measured([image(size, truth, guesses)], 2).state(), 2, "segm")
    assert counts.tolist() == [[1, 0, 0], [1, 0, 1], [0, 1, 0]]


def test_the_overlap_of_masks_is_counted_in_pixels():
    generator = np.random.default_rng(0)
    masks = generator.random((7, 15, 11)) < 0.4
    rles = [{"size": [15, 11], "counts": encoded(mask)} for mask in masks]
    crowd = np.array([False, True, False, True])
    iou = mask_iou(rles[:3], rles[3:], crowd)
    for i in range(3):
        for j in range(4):
            common = (masks[i] & masks[3 + j]).sum()
            union = masks[i].sum() if crowd[j] else (masks[i] | masks[3 + j]).sum()
            assert iou[i, j] == common / union
    assert mask_iou([], rles, np.zeros(7, dtype=bool)).shape == (0, 7)
    assert mask_iou(rles, [], np.zeros(0, dtype=bool)).shape == (7, 0)


def test_a_score_that_is_not_finite_finds_nothing():
    size = (30, 30)
    hit = box(size, 0, 0, 20, 20)
    metric = measured([image(size, [(0, hit)], [(0, math.nan, hit), (0, 0.1, hit)])], 1)
    assert metric.compute()["mAP"] == pytest.approx(1)
    assert metric.state()["num_detections"].tolist() == [1]
    broken = measured([image(size, [(0, hit)], [(0, math.nan, hit), (0, math.inf, hit)])], 1)
    assert broken.compute()["mAP"] == 0


def test_batches_that_do_not_fit_are_refused():
    size = (20, 20)
    rle = box(size, 0, 0, 9, 9)
    good = image(size, [(0, rle)], [(0, 0.9, rle)])
    for change, message in (
        ({"scores": torch.zeros(2)}, "predictions of image 0: 1 rles, 2 scores, 1 labels"),
        ({"labels": torch.tensor([2])}, "labels: expected 0 to 1, got 2 to 2"),
        ({"labels": torch.tensor([-1])}, "labels: expected 0 to 1, got -1 to -1"),
        (
            {"ground_truth": good["ground_truth"] | {"labels": np.array([0, 0])}},
            "ground truth of image 0: 1 rles, 2 labels, 1 crowd, 1 areas",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            measured([good | change], 2)
    two = {"ground_truth": [good["ground_truth"]] * 2, "sample_ids": torch.tensor([0, 1])}
    with pytest.raises(ValueError, match="predictions of 2 images: rles of 1"):
        MaskAveragePrecision(2).update(
            {key: [good[key]] for key in ("rles", "labels", "scores")},
            two | {"sizes": torch.tensor([size, size])},
        )
    with pytest.raises(ValueError, match="expected one of pycocotools, faster"):
        MaskAveragePrecision(2, "slower")


def test_the_fast_backend_gives_equal_numbers():
    pytest.importorskip("faster_coco_eval")
    for seed in range(10):
        images = random_images(8, 3, seed)
        slow, fast = measured(images, 3), measured(images, 3, backend="faster")
        assert same(fast.compute(), slow.compute()) and list(fast.compute()) == list(slow.compute())
        assert fast.compute([0, 0, 3]) == pytest.approx(slow.compute([0, 0, 3]), abs=0, nan_ok=True)
        for ours, theirs in ((fast.curves(), slow.curves()), (fast.per_class(), slow.per_class())):
            assert all(
                np.allclose(ours[key], theirs[key], atol=1e-12, equal_nan=True) for key in theirs
            )
