"""Points at which masks are compared."""

import pytest
import torch
from eomt_outputs import random_outputs
from torch.nn import functional as F

from visionloop.tasks.segmentation.matcher import hungarian_matches
from visionloop.tasks.segmentation.points import (
    OwnPoints,
    SharedPoints,
    point_sample,
    point_sample_by_gather,
    uniform_points,
)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 2)])
def test_gathered_values_and_their_gradient_are_those_of_sampling(size):
    maps = torch.randn(2, 3, *size, requires_grad=True)
    edges = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.5, 0.5]])
    points = torch.cat([torch.rand(2, 50, 2), edges.expand(2, -1, -1)], 1)
    weights = torch.randn(2, 3, 54)
    values = [sample(maps, points) for sample in (point_sample, point_sample_by_gather)]
    assert torch.allclose(*values, atol=1e-5)
    assert torch.allclose(
        *(torch.autograd.grad((values * weights).sum(), maps)[0] for values in values), atol=1e-5
    )


def compared(kind, outputs, number):
    comparison = kind(outputs.mask_logits, outputs.masks, None, number, uniform_points)
    comparison.for_matching()
    costs = torch.rand(*outputs.mask_logits.shape[:3], max(map(len, outputs.masks)))
    matches = hungarian_matches(costs, [len(maps) for maps in outputs.masks])
    rows = outputs.mask_logits[matches.images, matches.levels, matches.queries]
    return rows, *comparison.for_loss(rows, matches)


@pytest.mark.parametrize("kind", [SharedPoints, OwnPoints])
def test_matched_masks_are_compared_where_their_logits_are_uncertain(kind):
    torch.manual_seed(0)
    outputs = random_outputs((2, 0, 3), levels=3, grid=(20, 20), side=(40, 40))
    rows, x, y, valid = compared(kind, outputs, 100)
    assert len(rows) == 3 * (2 + 3) and x.shape == y.shape == (15, 100) and valid is None
    # three quarters of them are the least certain quarter of all candidates
    assert x.detach().abs().mean() < 0.6 * rows.detach().abs().mean()
    assert x[:, :75].detach().abs().amax(1).mean() < x[:, 75:].detach().abs().amax(1).mean()


def test_targets_are_sampled_where_the_logits_are():
    torch.manual_seed(0)
    outputs = random_outputs((2, 3), levels=2, grid=(12, 12), side=(12, 12))
    with torch.no_grad():  # the logits are masks: each value names its target
        for b, maps in enumerate(outputs.masks):
            outputs.mask_logits[b] = F.pad(maps.float(), (0, 0, 0, 0, 0, 5 - len(maps)))
    for kind in (SharedPoints, OwnPoints):
        comparison = kind(outputs.mask_logits, outputs.masks, None, 64, uniform_points)
        x, y, _ = comparison.for_matching()
        assert torch.allclose(x[:, :3], y)
        costs = 1 - torch.eye(5)[:, :3].expand(2, 2, -1, -1)
        matches = hungarian_matches(costs, [2, 3])
        assert matches.queries.equal(matches.targets) and matches.sizes == [4, 6]
        x, y, _ = comparison.for_loss(
            outputs.mask_logits[matches.images, matches.levels, matches.queries], matches
        )
        assert torch.allclose(x, y)
