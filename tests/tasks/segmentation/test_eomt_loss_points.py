"""Where masks are compared."""

import pytest
import torch
from eomt_outputs import random_answers
from torch.nn import functional as F

from visionloop.tasks.segmentation.matcher import assign
from visionloop.tasks.segmentation.points import (
    OwnPoints,
    SharedPoints,
    sample,
    sample_by_gather,
    uniform_points,
)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 2)])
def test_gathered_values_and_their_gradient_are_those_of_sampling(size):
    maps = torch.randn(2, 3, *size, requires_grad=True)
    edges = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.5, 0.5]])
    points = torch.cat([torch.rand(2, 50, 2), edges.expand(2, -1, -1)], 1)
    weights = torch.randn(2, 3, 54)
    found = [way(maps, points) for way in (sample, sample_by_gather)]
    assert torch.allclose(*found, atol=1e-5)
    assert torch.allclose(
        *(torch.autograd.grad((values * weights).sum(), maps)[0] for values in found), atol=1e-5
    )


def compared(kind, answers, number):
    comparison = kind(answers.mask_logits, answers.masks, None, number, uniform_points)
    comparison.for_matching()
    costs = torch.rand(*answers.mask_logits.shape[:3], max(map(len, answers.masks)))
    pairs = assign(costs, [len(maps) for maps in answers.masks])
    rows = answers.mask_logits[pairs.images, pairs.levels, pairs.queries]
    return rows, *comparison.for_loss(rows, pairs)


@pytest.mark.parametrize("kind", [SharedPoints, OwnPoints])
def test_matched_masks_are_compared_where_their_answer_is_unsure(kind):
    torch.manual_seed(0)
    answers = random_answers((2, 0, 3), levels=3, grid=(20, 20), side=(40, 40))
    rows, x, y, known = compared(kind, answers, 100)
    assert len(rows) == 3 * (2 + 3) and x.shape == y.shape == (15, 100) and known is None
    # three quarters of them are the least certain quarter of all candidates
    assert x.detach().abs().mean() < 0.6 * rows.detach().abs().mean()
    assert x[:, :75].detach().abs().amax(1).mean() < x[:, 75:].detach().abs().amax(1).mean()


def test_truth_is_read_where_the_answer_is():
    torch.manual_seed(0)
    answers = random_answers((2, 3), levels=2, grid=(12, 12), side=(12, 12))
    with torch.no_grad():  # every answer is a mask, and so tells which it was compared with
        for b, maps in enumerate(answers.masks):
            answers.mask_logits[b] = F.pad(maps.float(), (0, 0, 0, 0, 0, 5 - len(maps)))
    for kind in (SharedPoints, OwnPoints):
        comparison = kind(answers.mask_logits, answers.masks, None, 64, uniform_points)
        x, y, _ = comparison.for_matching()
        assert torch.allclose(x[:, :3], y)
        costs = 1 - torch.eye(5)[:, :3].expand(2, 2, -1, -1)
        pairs = assign(costs, [2, 3])
        assert pairs.queries.equal(pairs.targets) and pairs.sizes == [4, 6]
        x, y, _ = comparison.for_loss(
            answers.mask_logits[pairs.images, pairs.levels, pairs.queries], pairs
        )
        assert torch.allclose(x, y)
