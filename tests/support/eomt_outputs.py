"""What an EoMT network might say of a batch, true masks for it, and points that are known."""

from types import SimpleNamespace

import torch
from torch.nn import functional as F

CLASSES = 5


def random_answers(sizes, *, levels=2, queries=5, grid=(5, 6), side=(10, 12), seed=0, ignored=0.0):
    """Images with so many masks each, as a namespace: leaves mask_logits, class_logits; masks (that may overlap), labels, valid.

    ignored: share of the pixels that `valid` leaves out; they are in no mask.
    """
    generator = torch.Generator().manual_seed(seed)
    images = len(sizes)
    valid = torch.rand(images, *side, generator=generator) >= ignored
    masks = []
    for b, size in enumerate(sizes):
        rough = torch.rand(1, size, 3, 4, generator=generator) if size else torch.zeros(1, 1, 3, 4)
        masks.append((F.interpolate(rough, size=side, mode="bilinear")[0, :size] > 0.45) & valid[b])
    return SimpleNamespace(
        mask_logits=(
            2 * torch.randn(images, levels, queries, *grid, generator=generator)
        ).requires_grad_(),
        class_logits=torch.randn(
            images, levels, queries, CLASSES + 1, generator=generator
        ).requires_grad_(),
        masks=masks,
        labels=[torch.randint(0, CLASSES, (size,), generator=generator) for size in sizes],
        valid=valid,
    )


def loss_of(criterion, answers, rows=slice(None), count=None):
    """The criterion's dict for the images `rows` of the answers."""
    tensors = (answers.mask_logits[rows], answers.class_logits[rows])
    return criterion(
        *tensors, answers.masks[rows], answers.labels[rows], count, answers.valid[rows]
    )


def gradients(answers, loss):
    """Float64, of the mask logits and of the class logits; an unused one would raise."""
    found = torch.autograd.grad(
        loss, (answers.mask_logits, answers.class_logits), retain_graph=True
    )
    return [gradient.double() for gradient in found]


class Record:
    """Draws uniform points and remembers them."""

    def __init__(self, seed=0):
        self.generator, self.drawn = torch.Generator().manual_seed(seed), []

    def __call__(self, rows, number, device):
        self.drawn.append(torch.rand(rows, number, 2, generator=self.generator))
        return self.drawn[-1]


class Replay:
    """Gives the points of a `Record` again, to the rows from `firsts` on: one place for each draw."""

    def __init__(self, drawn, firsts):
        self.left = list(zip(drawn, firsts, strict=True))

    def __call__(self, rows, number, device):
        points, first = self.left.pop(0)
        assert points.shape[1] == number
        return points[first : first + rows]
