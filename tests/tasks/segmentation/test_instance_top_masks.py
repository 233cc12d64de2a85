"""Instances: the top pairs of query and class, their masks and their scores."""

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from torch.nn import functional as F

from visionloop.tasks.operating_point import ScoreThresholds
from visionloop.tasks.segmentation.instance import top_masks as top_masks_module
from visionloop.tasks.segmentation.instance.top_masks import encode_masks, reaching, top_masks
from visionloop.tasks.segmentation.segments import upsample

CLASSES, QUERIES, SIDE = 4, 40, 64
SIZES = [(64, 64), (48, 64), (64, 40), (37, 90), (200, 101), (1, 64), (9, 5)]


def random_outputs(seed, queries=QUERIES, side=SIDE // 4):
    """Return (mask logits [Q, h, w], class logits [Q, K + 1]); one mask in four has no pixel."""
    generator = torch.Generator().manual_seed(seed)
    masks = 2 * torch.randn(queries, side // 4, side // 4, generator=generator) - 1
    masks = F.interpolate(masks[None], size=(side, side), mode="bilinear")[0]
    masks[::4] -= 20
    return masks, 2 * torch.randn(queries, CLASSES + 1, generator=generator)


def resized(mask_logits, size_hw):
    factor = min(SIDE / size_hw[0], SIDE / size_hw[1])
    height, width = (max(1, round(length * factor)) for length in size_hw)
    square = F.interpolate(mask_logits[None].float(), size=(SIDE, SIDE), mode="bilinear")
    return F.interpolate(square[..., :height, :width], size=size_hw, mode="bilinear")[0]


def by_the_rules(mask_logits, class_logits, size_hw, count=100):
    """Return [(score, query, class, mask), ...], the best first, pair by pair.

    Source: `eval_step` in training/mask_classification_instance.py of `tue-mps/eomt`.
    """
    scores = class_logits.float().softmax(-1)[:, :-1]
    pairs = [(scores[q, k].item(), q, k) for q in range(len(scores)) for k in range(CLASSES)]
    logits = resized(mask_logits, size_hw)
    instances = []
    for probability, query, label in sorted(pairs, reverse=True)[:count]:
        mask = logits[query] > 0
        if mask.any():
            quality = logits[query].sigmoid()[mask].mean().item()
            instances.append((probability * quality, query, label, mask))
    return sorted(instances, key=lambda instance: -instance[0])


def decoded(rles, size_hw):
    """Return bool [n, H, W]."""
    masks = coco_mask.decode([{"size": list(size_hw), "counts": rle} for rle in rles])
    return torch.from_numpy(np.ascontiguousarray(masks.transpose(2, 0, 1))).bool()


def assert_same_instances(result, expected, size_hw):
    rles, labels, scores = result
    assert (labels.dtype, scores.dtype) == (torch.int64, torch.float32)
    assert len(rles) == len(labels) == len(scores) == len(expected) > 0
    assert labels.tolist() == [instance[2] for instance in expected]
    assert scores.tolist() == pytest.approx([instance[0] for instance in expected], rel=1e-5)
    masks = torch.stack([instance[3] for instance in expected])
    assert (decoded(rles, size_hw) == masks).float().mean() > 0.9999


@pytest.mark.parametrize("strip", [1, 5000, 2**20])
@pytest.mark.parametrize("size_hw", SIZES)
def test_instances_are_those_of_the_authors_rules_in_strips_of_any_height(
    size_hw, strip, monkeypatch
):
    monkeypatch.setattr(upsample, "STRIP", strip)
    for seed in range(3):
        outputs = random_outputs(seed)
        expected = by_the_rules(*outputs, size_hw)
        assert_same_instances(top_masks(*outputs, size_hw, SIDE), expected, size_hw)


@pytest.mark.parametrize("limit", [1, 64 * 48 * 5])
def test_how_many_masks_are_encoded_at_once_changes_nothing(limit, monkeypatch):
    masks, _ = random_outputs(1)
    rles, qualities = encode_masks(masks, (64, 48), SIDE)
    monkeypatch.setattr(top_masks_module, "MASKS", limit)
    others, other_qualities = encode_masks(masks, (64, 48), SIDE)
    assert rles == others
    torch.testing.assert_close(qualities, other_qualities)


def test_a_mask_of_several_classes_is_encoded_once(monkeypatch):
    masks, classes = random_outputs(0, queries=3)
    encoded = []

    def encode(mask_logits, *arguments):
        encoded.append(len(mask_logits))
        return encode_masks(mask_logits, *arguments)

    monkeypatch.setattr(top_masks_module, "encode_masks", encode)
    masks[0] += 20
    classes[1:, -1] = 50  # queries 1 and 2 are of no object
    rles, labels, scores = top_masks(masks, classes, (48, 64), SIDE, count=4)
    assert encoded == [1] and len(set(rles)) == 1
    order = classes[0, :-1].argsort(descending=True)
    assert torch.equal(labels, order)
    assert torch.equal(scores, scores.sort(descending=True).values)
    ratios = scores / classes[0].softmax(0)[order]
    torch.testing.assert_close(ratios, ratios[:1].expand(4))  # one quality


@pytest.mark.parametrize("count", [1, 7, 100, 1000])
def test_no_more_pairs_are_chosen_than_asked_for(count):
    outputs = random_outputs(2)
    expected = by_the_rules(*outputs, (48, 64), count)
    assert_same_instances(top_masks(*outputs, (48, 64), SIDE, count=count), expected, (48, 64))


def test_pairs_below_the_score_are_left_out():
    outputs = random_outputs(0)
    rles, labels, scores = top_masks(*outputs, (48, 64), SIDE)
    threshold = scores[10].item()
    few = top_masks(*outputs, (48, 64), SIDE, score=threshold)
    assert few[0] == rles[:11] and torch.equal(few[1], labels[:11])
    assert torch.equal(few[2], scores[:11])
    assert [len(values) for values in top_masks(*outputs, (48, 64), SIDE, score=1.0)] == [0] * 3


def test_each_class_may_have_a_smallest_score_of_its_own():
    rles, labels, scores = top_masks(*random_outputs(0), (48, 64), SIDE)
    smallest = torch.tensor([scores[labels == label].median().item() for label in range(CLASSES)])
    chosen = ScoreThresholds(tuple(smallest.tolist()))
    kept = [i for i in range(len(rles)) if scores[i] >= smallest[labels[i]]]
    assert 0 < len(kept) < len(rles)
    found = reaching(chosen, rles, labels, scores)
    assert found[0] == [rles[i] for i in kept]
    assert torch.equal(found[1], labels[kept]) and torch.equal(found[2], scores[kept])


def test_masks_without_a_pixel_are_no_instances():
    masks, classes = random_outputs(0)
    rles, labels, scores = top_masks(masks.clamp(max=0), classes, (48, 64), SIDE)
    assert rles == [] and labels.shape == scores.shape == (0,)
    assert (labels.dtype, scores.dtype) == (torch.int64, torch.float32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_outputs_of_half_precision_are_read_in_fp32(dtype):
    masks, classes = (logits.to(dtype) for logits in random_outputs(3))
    result = top_masks(masks, classes, (48, 64), SIDE)
    expected = top_masks(masks.float(), classes.float(), (48, 64), SIDE)
    assert result[0] == expected[0]
    assert all(map(torch.equal, result[1:], expected[1:]))
