"""Edges as distributions, and the closed gradients of the loss terms."""

import torch
from dfine_outputs import random_boxes
from plain_dfine_loss import bin_values as plain_bin_values

from visionloop.tasks.detection.loss_terms import (
    bin_values,
    corner_targets,
    divergence_from_last_layer,
    fgl_losses,
    varifocal_losses,
)

BINS = bin_values(32, 4.0, 0.5)


def test_bins_are_those_of_the_formula():
    for shape in ((32, 4.0, 0.5), (32, 8.0, 0.5), (16, -4.0, -0.3)):
        assert torch.allclose(bin_values(*shape), torch.tensor(plain_bin_values(*shape)), atol=1e-6)
        assert (bin_values(*shape).diff() > 0).all()


def test_a_box_that_is_its_reference_lies_in_the_middle_bin():
    box = torch.tensor([[0.5, 0.5, 0.25, 0.5]])
    left, right_weight = corner_targets(box, box, BINS, 4.0)
    assert left.tolist() == [[16] * 4] and right_weight.tolist() == [[0.0] * 4]


def test_edges_beyond_all_bins_go_to_the_outermost():
    reference = torch.tensor([[0.5, 0.5, 0.1, 0.1]])
    left, right_weight = corner_targets(reference, torch.tensor([[0.95, 0.5, 0.1, 0.9]]), BINS, 4.0)
    assert left[0].tolist() == [0, 31, 31, 31] and right_weight[0].tolist() == [0.0, 1.0, 1.0, 1.0]


def test_an_edge_target_is_the_edge_read_back():
    true = random_boxes(torch.Generator().manual_seed(0), 30)
    reference = true + 0.02
    left, right_weight = corner_targets(reference, true, BINS, 4.0)
    offsets = torch.lerp(BINS[left], BINS[left + 1], right_weight)  # [30, 4]
    cx, cy, w, h = reference.unbind(-1)
    x1, y1 = cx - (2 + offsets[:, 0]) * w / 4, cy - (2 + offsets[:, 1]) * h / 4
    x2, y2 = cx + (2 + offsets[:, 2]) * w / 4, cy + (2 + offsets[:, 3]) * h / 4
    read = torch.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], -1)
    assert torch.allclose(read, true, atol=1e-5)


def test_references_without_size_give_finite_targets():
    reference = torch.tensor([[0.5, 0.5, 0.0, 0.0], [float("nan")] * 4])
    left, right_weight = corner_targets(
        reference, torch.tensor([[0.5, 0.5, 0.1, 0.1]] * 2), BINS, 4.0
    )
    assert ((left >= 0) & (left <= 31) & (right_weight >= 0) & (right_weight <= 1)).all()


def test_the_closed_gradients_are_those_of_autograd():
    torch.manual_seed(0)
    logits, quality = (
        torch.randn(6, 5, dtype=torch.float64, requires_grad=True),
        torch.rand(2, dtype=torch.float64),
    )
    rows, labels = torch.tensor([1, 4]), torch.tensor([0, 3])
    weights = 0.75 * logits.detach().sigmoid().square()
    goal = torch.zeros_like(logits)
    goal[rows, labels] = weights[rows, labels] = quality
    plain = (
        weights
        * torch.nn.functional.binary_cross_entropy_with_logits(logits, goal, reduction="none")
    ).sum(-1)
    ours, pull = (
        varifocal_losses(logits, rows, labels, quality),
        torch.randn(6, dtype=torch.float64),
    )
    assert torch.allclose(ours, plain)
    assert torch.allclose(
        *(torch.autograd.grad(losses, logits, pull)[0] for losses in (ours, plain))
    )

    edges = torch.randn(2, 3, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    teacher, students = (
        (edges[:, -1:].detach() / 5).softmax(-1),
        (edges[:, :-1] / 5).log_softmax(-1),
    )
    plain = (teacher * (teacher.log() - students)).sum((-2, -1))
    ours, pull = divergence_from_last_layer(edges, 5.0), torch.randn(2, 2, 2, dtype=torch.float64)
    assert torch.allclose(ours, plain)
    assert torch.allclose(
        *(torch.autograd.grad(losses, edges, pull)[0] for losses in (ours, plain))
    )


def test_edge_losses_are_cross_entropies():
    torch.manual_seed(0)
    logits, left, right_weight = (
        torch.randn(3, 2, 4, 33),
        torch.randint(0, 32, (3, 4)),
        torch.rand(3, 4),
    )
    log_p = logits.log_softmax(-1)
    expected = torch.zeros(3, 2)
    for pair in range(3):
        for side in range(4):
            i, weight = left[pair, side], right_weight[pair, side]
            expected[pair] -= (1 - weight) * log_p[pair, :, side, i] + weight * log_p[
                pair, :, side, i + 1
            ]
    assert torch.allclose(fgl_losses(logits, left, right_weight), expected, atol=1e-5)
