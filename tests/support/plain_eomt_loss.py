"""EoMT's loss the slow and obvious way: in float64, level by level, image by image, pair by pair, point by point.

LossNormalizers no code with the product. The specification: arXiv 2112.01527 and the authors' code; points
are given.
"""

from math import ceil, floor

import torch
from scipy.optimize import linear_sum_assignment
from torch.nn import functional as F

WEIGHTS = {"class": 2.0, "mask": 5.0, "dice": 5.0}
ZERO = torch.zeros((), dtype=torch.float64)


def value_at(image, point):
    """Bilinear, zero beyond the border; pixel centres lie at (i + 0.5) / size."""
    height, width = image.shape
    x, y = point[0].item() * width - 0.5, point[1].item() * height - 0.5
    found = ZERO
    for column in (floor(x), floor(x) + 1):
        for row in (floor(y), floor(y) + 1):
            if 0 <= column < width and 0 <= row < height:
                found = found + (1 - abs(x - column)) * (1 - abs(y - row)) * image[row, column]
    return found


def values_at(image, points):
    return torch.stack([value_at(image, point) for point in points])


def averaged(image, size):
    """Mean over the pixels that each cell of a grid of `size` touches: [h * w]."""
    (height, width), (h, w) = image.shape, size
    cells = []
    for i in range(h):
        for j in range(w):
            rows = slice(floor(i * height / h), ceil((i + 1) * height / h))
            cells.append(image[rows, floor(j * width / w) : ceil((j + 1) * width / w)].mean())
    return torch.stack(cells)


def entropy_and_dice(x, y, known):
    """x: logits; y: share of true pixels; known: share of pixels that count."""
    p = x.sigmoid()
    # what is true of the known part, weighed by its size
    truth = torch.where(known > 0, y / known.clamp(min=1e-12), 0.0)
    entropy = known * F.binary_cross_entropy_with_logits(x, truth, reduction="none")
    dice = 1 - (2 * (known * p * truth).sum() + 1) / ((known * p).sum() + (known * truth).sum() + 1)
    return entropy.sum() / known.sum().clamp(min=1e-6), dice


def matching(x, y, known, class_logits, labels):
    """[(query, mask)] of one image and level. x: [Q] of values at the shared points; y: [T] of the same."""
    cost = torch.zeros(len(x), len(y), dtype=torch.float64)
    for q in range(len(x)):
        for t in range(len(y)):
            entropy, dice = entropy_and_dice(x[q], y[t], known)
            cost[q, t] = (
                -WEIGHTS["class"] * class_logits[q].softmax(-1)[labels[t]]
                + WEIGHTS["mask"] * entropy
                + WEIGHTS["dice"] * dice
            )
    return list(
        zip(
            *(indices.tolist() for indices in linear_sum_assignment(cost.detach().numpy())),
            strict=True,
        )
    )


def least_certain(logits, known, number):
    keys = [
        abs(value) if share > 0 else float("inf")
        for value, share in zip(logits.tolist(), known.tolist(), strict=True)
    ]
    return torch.tensor(sorted(range(len(keys)), key=keys.__getitem__)[:number], dtype=torch.int64)


def plain_eomt_loss(
    mask_logits, class_logits, masks, labels, *, points, drawn=(), shared=True, valid=None
):
    """{"loss", "loss_class", "loss_mask", "loss_dice"} of one batch on one process, in float64.

    points: 0 for all pixels. drawn: with shared [[B, 3.25 P, 2]], else [[B, P, 2], [N, 3 P, 2], [N,
    P / 4, 2]], pairs in the order of image, level, query.
    """
    mask_logits, class_logits, masks = (
        mask_logits.double(),
        class_logits.double(),
        [maps.double() for maps in masks],
    )
    images, levels, queries = mask_logits.shape[:3]
    num_classes, unsure, size = (
        class_logits.shape[-1] - 1,
        int(0.75 * points),
        mask_logits.shape[-2:],
    )
    seen = torch.ones(images, *masks[0].shape[1:]).double() if valid is None else valid.double()

    def known_at(b, places):
        return values_at(seen[b], places) / values_at(
            torch.ones_like(seen[b]), places
        )  # beyond the border is nothing to know

    entropy, dice, class_sum, class_weight, pairs = ZERO, ZERO, ZERO, ZERO, 0
    for b in range(images):
        for level in range(levels):
            answers = mask_logits[b, level]
            if points:
                common = drawn[0][b, :points]
                x, y = (
                    [values_at(image, common) for image in answers],
                    [values_at(image, common) for image in masks[b]],
                )
                known = known_at(b, common)
            else:
                x, y, known = (
                    [image.flatten() for image in answers],
                    [averaged(image, size) for image in masks[b]],
                    averaged(seen[b], size),
                )
            found = matching(x, y, known, class_logits[b, level], labels[b])
            for q, t in found:
                if points:
                    candidates = drawn[0][b, : 3 * points] if shared else drawn[1][pairs]
                    fresh = drawn[0][b, 3 * points :] if shared else drawn[2][pairs]
                    chosen = least_certain(
                        values_at(answers[q].detach(), candidates), known_at(b, candidates), unsure
                    )
                    own = torch.cat([candidates[chosen], fresh])
                    terms = entropy_and_dice(
                        values_at(answers[q], own), values_at(masks[b][t], own), known_at(b, own)
                    )
                else:
                    terms = entropy_and_dice(x[q], y[t], known)
                entropy, dice, pairs = entropy + terms[0], dice + terms[1], pairs + 1
            truth = {q: labels[b][t].item() for q, t in found}
            for q in range(queries):
                weight = 1.0 if q in truth else 0.1
                class_sum = (
                    class_sum
                    - weight * class_logits[b, level, q].log_softmax(-1)[truth.get(q, num_classes)]
                )
                class_weight = class_weight + weight
    divisor = max(1, pairs / levels)
    terms = {
        "class": class_sum / (class_weight / levels),
        "mask": entropy / divisor,
        "dice": dice / divisor,
    }
    losses = {f"loss_{name}": WEIGHTS[name] * value for name, value in terms.items()}
    return {"loss": sum(losses.values()), **losses}
