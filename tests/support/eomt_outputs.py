"""Random outputs of an EoMT network, ground-truth masks for them, and repeatable points."""

from types import SimpleNamespace

import torch
from torch.nn import functional as F

CLASSES = 5


def random_outputs(sizes, *, levels=2, queries=5, grid=(5, 6), side=(10, 12), seed=0, ignored=0.0):
    """Return images with `sizes` masks each as a namespace.

    It holds the leaves mask_logits and class_logits, masks (which may overlap), labels and valid.
    ignored: share of the pixels that `valid` leaves out; they are in no mask.
    """
    generator = torch.Generator().manual_seed(seed)
    images = len(sizes)
    valid = torch.rand(images, *side, generator=generator) >= ignored
    masks = []
    for b, size in enumerate(sizes):
        rough = torch.rand(1, size, 3, 4, generator=generator) if size else torch.zeros(1, 1, 3, 4)
        masks.append((F.interpolate(rough, size=side, mode="bilinear")[0, :size] > 0.45) & valid[b])
    mask_logits = 2 * torch.randn(images, levels, queries, *grid, generator=generator)
    class_logits = torch.randn(images, levels, queries, CLASSES + 1, generator=generator)
    return SimpleNamespace(
        mask_logits=mask_logits.requires_grad_(),
        class_logits=class_logits.requires_grad_(),
        masks=masks,
        labels=[torch.randint(0, CLASSES, (size,), generator=generator) for size in sizes],
        valid=valid,
    )


def loss_of(criterion, outputs, rows=slice(None), normalizers=None):
    """Return the criterion's dict for the images `rows` of the outputs."""
    return criterion(
        outputs.mask_logits[rows],
        outputs.class_logits[rows],
        outputs.masks[rows],
        outputs.labels[rows],
        normalizers,
        outputs.valid[rows],
    )


def gradients(outputs, loss):
    """Return float64 gradients of mask logits and class logits; an unused one raises."""
    leaves = (outputs.mask_logits, outputs.class_logits)
    return [gradient.double() for gradient in torch.autograd.grad(loss, leaves, retain_graph=True)]


class Record:
    """Draw uniform points and record them."""

    def __init__(self, seed=0):
        self.generator, self.drawn = torch.Generator().manual_seed(seed), []

    def __call__(self, rows, number, device):
        self.drawn.append(torch.rand(rows, number, 2, generator=self.generator))
        return self.drawn[-1]


class Replay:
    """Return the points of a `Record` again; firsts: the first row of each draw."""

    def __init__(self, drawn, firsts):
        self.left = list(zip(drawn, firsts, strict=True))

    def __call__(self, rows, number, device):
        points, first = self.left.pop(0)
        assert points.shape[1] == number
        return points[first : first + rows]
