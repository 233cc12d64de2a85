"""Micro-batches and ranks give the loss and gradient of one batch at the same points."""

from itertools import pairwise

import pytest
import torch
from eomt_outputs import CLASSES, Record, Replay, gradients, loss_of, random_outputs

from visionloop.engine.distributed import join_world, sum_over_ranks
from visionloop.engine.testing.short_runs import on_ranks
from visionloop.tasks.segmentation.loss import EomtCriterion

SIZES = (5, 1, 0, 2, 0, 9, 1, 3)  # 9: more than there are queries
LEVELS, QUERIES = 3, 6
SAMPLERS = [{"points": 0}, {"points": 20}, {"points": 20, "share_candidates": False}]


def pairs_of(sizes):
    return sum(min(QUERIES, size) for size in sizes)


def normalizers_of(sizes):
    pairs = pairs_of(sizes)
    return {"masks": pairs, "class_weight": pairs + 0.1 * (len(sizes) * QUERIES - pairs)}


def whole_batch():
    return random_outputs(SIZES, levels=LEVELS, queries=QUERIES, seed=7, ignored=0.2)


def criterion_of(sampler, draw):
    return EomtCriterion(CLASSES, mask_ignore=True, draw=draw, **sampler)


def firsts_of(sampler, first):
    """Return the row at which image `first` begins in each draw."""
    pairs = LEVELS * pairs_of(SIZES[:first])
    return (
        ()
        if not sampler["points"]
        else (first, pairs, pairs)
        if sampler.get("share_candidates") is False
        else (first,)
    )


@pytest.mark.parametrize("sampler", SAMPLERS, ids=["dense", "shared", "own"])
@pytest.mark.parametrize("firsts", [(0, 2, 4, 6, 8), (0, 1, 5, 8)])
def test_micro_batches_give_the_loss_and_gradient_of_one_batch(sampler, firsts):
    outputs, record = whole_batch(), Record()
    whole = loss_of(criterion_of(sampler, record), outputs)
    parts = []
    for first, stop in pairwise(firsts):
        criterion = criterion_of(sampler, Replay(record.drawn, firsts_of(sampler, first)))
        parts.append(loss_of(criterion, outputs, slice(first, stop), normalizers_of(SIZES)))
    for name, value in whole.items():
        assert sum(part[name].item() for part in parts) == pytest.approx(value.item(), rel=1e-6), (
            name
        )
    added = gradients(outputs, sum(part["loss"] for part in parts))
    for gradient, expected in zip(added, gradients(outputs, whole["loss"]), strict=True):
        assert (gradient - expected).norm() <= 1e-6 * expected.norm()


def loss_of_rank(sampler, firsts, drawn):
    """Return {"losses", "gradients"} of rank r, which has the images firsts[r]:firsts[r + 1]."""
    world, outputs = join_world("cpu"), whole_batch()
    rows = slice(firsts[world.rank], firsts[world.rank + 1])
    own = normalizers_of(SIZES[rows])
    masks, class_weight = sum_over_ranks(world, [own["masks"], own["class_weight"]])
    normalizers = {"masks": max(1, masks) / world.size, "class_weight": class_weight / world.size}
    drawn = [torch.tensor(points) for points in drawn]
    losses = loss_of(
        criterion_of(sampler, Replay(drawn, firsts_of(sampler, rows.start))),
        outputs,
        rows,
        normalizers,
    )
    return {
        "losses": {name: value.item() for name, value in losses.items()},
        "gradients": [gradient.tolist() for gradient in gradients(outputs, losses["loss"])],
    }


# 2 ranks with 8 and 10 pairs, and with 17 and 1
@pytest.mark.parametrize(
    ("sampler", "firsts"),
    [
        (SAMPLERS[0], (0, 4, 8)),
        (SAMPLERS[1], (0, 6, 7)),
        (SAMPLERS[1], (0, 4, 8)),
        (SAMPLERS[2], (0, 4, 8)),
    ],
)
def test_two_ranks_give_the_loss_and_gradient_of_one(sampler, firsts):
    outputs, record = whole_batch(), Record()
    rows = slice(firsts[0], firsts[-1])
    whole = loss_of(criterion_of(sampler, record), outputs, rows)
    ranks = on_ranks(
        2,
        loss_of_rank,
        sampler,
        firsts,
        [points.tolist() for points in record.drawn],
        context="fork",
    )
    for name, value in whole.items():
        assert sum(rank["losses"][name] for rank in ranks) / 2 == pytest.approx(
            value.item(), rel=1e-5
        ), name
    for i, expected in enumerate(gradients(outputs, whole["loss"])):
        gradient = (
            sum(torch.tensor(rank["gradients"][i], dtype=torch.float64) for rank in ranks) / 2
        )
        assert (gradient - expected).norm() <= 1e-5 * expected.norm()
