"""Hungarian matching: costs, assignment and the union over heads."""

import numpy as np
import torch
from dfine_outputs import random_boxes, random_outputs
from plain_dfine_loss import iou_and_giou as plain_iou_and_giou
from plain_dfine_loss import matching
from plain_dfine_loss import union as plain_union

from visionloop.tasks.detection.boxes import corners_of, cxcywh_to_xyxy, iou_and_giou
from visionloop.tasks.detection.matcher import (
    HungarianMatcher,
    Matches,
    ModelOutputs,
    Targets,
    hungarian_matches,
    union_over_heads,
)


def costs_of(outputs, targets):
    heads = ModelOutputs.from_outputs(outputs).matched_heads()
    boxes = Targets.concatenate(targets)
    images = torch.from_numpy(boxes.images())
    costs = HungarianMatcher().matching_costs(heads, boxes.labels, boxes.boxes, images)
    return costs, boxes


def pairs_of(rows):
    """rows: (image, query, box, head)."""
    return Matches(*np.array(rows, np.int64).reshape(-1, 4).T)


def as_list(pairs):
    return list(
        zip(pairs.images.tolist(), pairs.queries.tolist(), pairs.boxes.tolist(), strict=True)
    )


def test_overlaps_of_pairs_are_those_of_two_boxes():
    generator = torch.Generator().manual_seed(0)
    first, second = random_boxes(generator, 50), random_boxes(generator, 50)
    iou, giou = iou_and_giou(cxcywh_to_xyxy(first).unbind(-1), corners_of(second.unbind(-1)))
    expected = torch.tensor([plain_iou_and_giou(a, b) for a, b in zip(first, second, strict=True)])
    assert torch.allclose(torch.stack([iou, giou], -1), expected, atol=1e-6)
    assert (iou > 0).any() and (iou == 0).any()


def test_overlaps_broadcast():
    generator = torch.Generator().manual_seed(0)
    first, second = random_boxes(generator, 5, 1), random_boxes(generator, 1, 7)
    table = iou_and_giou(corners_of(first.unbind(-1)), corners_of(second.unbind(-1)))
    wide = [corners_of(boxes.expand(5, 7, 4).unbind(-1)) for boxes in (first, second)]
    assert all(
        torch.equal(one, other) for one, other in zip(table, iou_and_giou(*wide), strict=True)
    )


def test_boxes_without_area_overlap_nothing_and_raise_nothing():
    empty = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.5, 0.5, -0.3, 0.2]]).requires_grad_()
    iou, giou = iou_and_giou(corners_of(empty.unbind(-1)), corners_of(empty.unbind(-1)))
    assert iou.tolist() == [0, 0]
    (iou + giou).sum().backward()
    assert torch.isfinite(empty.grad).all()


def test_costs_leave_out_the_boxes_of_other_images_and_denoising_queries():
    outputs, targets = random_outputs((3, 0, 5), layers=2, queries=7)
    costs, boxes_of_batch = costs_of(outputs, targets)
    assert costs.shape == (8, 4, 7)  # boxes, two layers + pre + encoder, queries
    assert boxes_of_batch.images().tolist() == [0, 0, 0, 2, 2, 2, 2, 2]


def test_each_head_and_image_gets_the_cheapest_assignment():
    outputs, targets = random_outputs((3, 0, 12, 1), layers=2, queries=9, seed=3)
    skip = outputs.denoising_meta_values["dn_num_split"][0]
    costs, boxes_of_batch = costs_of(outputs, targets)
    matches = hungarian_matches(costs.numpy(), boxes_of_batch.sizes)
    starts = [0, 3, 3, 15]
    for k in range(4):
        for b, target in enumerate(targets):
            if k < 3:
                logits, boxes = (
                    outputs.intermediate_logits[b, k, skip:],
                    outputs.intermediate_reference_points[b, k, skip:],
                )
            else:
                logits, boxes = outputs.enc_topk_logits[b], outputs.enc_topk_bboxes[b]
            here = (matches.images == b) & (matches.heads == k)
            own = dict(
                zip(
                    matches.queries[here].tolist(),
                    (matches.boxes[here] - starts[b]).tolist(),
                    strict=True,
                )
            )
            assert own == matching(logits.double(), boxes.double(), target)
            assert len(own) == min(9, len(target["boxes"]))


def test_costs_are_finite_whatever_the_model_predicts():
    outputs, targets = random_outputs((2, 3), layers=1, queries=6, denoising=0)
    with torch.no_grad():
        outputs.intermediate_reference_points[0, 0, 0] = float("nan")
        outputs.intermediate_reference_points[0, 1, 1] = float("inf")
        outputs.intermediate_reference_points[1, 0, 2, 2:] = -1
        outputs.intermediate_logits[1, 1] = float("nan")
    costs, boxes_of_batch = costs_of(outputs, targets)
    assert torch.isfinite(costs).all()
    matches = hungarian_matches(costs.numpy(), boxes_of_batch.sizes)
    assert len(matches) == 3 * 2 + 3 * 3
    # a query without finite outputs is taken last
    assert not ((matches.images == 0) & (matches.heads == 0) & (matches.queries == 0)).any()


def test_no_boxes_at_all_give_no_pairs():
    outputs, targets = random_outputs((0, 0))
    costs, boxes_of_batch = costs_of(outputs, targets)
    matches = hungarian_matches(costs.numpy(), boxes_of_batch.sizes)
    assert len(matches) == len(union_over_heads(matches)) == 0


def test_the_union_holds_every_matched_query_once_with_the_box_of_most_heads():
    rows = [(0, 4, 0, 0), (0, 4, 1, 1), (0, 4, 1, 2), (0, 2, 0, 1), (1, 4, 2, 0)]
    assert as_list(union_over_heads(pairs_of(rows))) == [(0, 2, 0), (0, 4, 1), (1, 4, 2)]


def test_equal_votes_go_to_the_first_box():
    assert as_list(union_over_heads(pairs_of([(0, 4, 3, 0), (0, 4, 1, 1), (0, 4, 2, 2)]))) == [
        (0, 4, 1)
    ]


def test_the_union_is_that_of_plain_counting():
    generator = np.random.default_rng(0)
    rows = [
        (b, q, 6 * b + g, k)
        for b in range(3)
        for k in range(7)
        for q, g in zip(generator.permutation(8)[:6], range(6), strict=True)
    ]
    pairs = union_over_heads(pairs_of(rows))
    for b in range(3):
        votes = plain_union(
            [{q: g for image, q, g, head in rows if (image, head) == (b, k)} for k in range(7)]
        )
        assert sorted((b, q, g) for q, g in votes.items()) == [
            row for row in as_list(pairs) if row[0] == b
        ]
