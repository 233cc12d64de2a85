"""The loss of EoMT in float64: level by level, image by image, pair by pair, point by point.

Shares no code with the product. The specification is arXiv:2112.01527 and the authors' code; points
are passed in.
"""

from math import ceil, floor

import torch
from scipy.optimize import linear_sum_assignment
from torch.nn import functional as F

WEIGHTS = {"class": 2.0, "mask": 5.0, "dice": 5.0}
ZERO = torch.zeros((), dtype=torch.float64)


def value_at(image, point):
    """Interpolate bilinearly, zero beyond the border; pixel centers are at (i + 0.5) / size."""
    height, width = image.shape
    x, y = point[0].item() * width - 0.5, point[1].item() * height - 0.5
    value = ZERO
    for column in (floor(x), floor(x) + 1):
        for row in (floor(y), floor(y) + 1):
            if 0 <= column < width and 0 <= row < height:
                value = value + (1 - abs(x - column)) * (1 - abs(y - row)) * image[row, column]
    return value


def values_at(image, points):
    return torch.stack([value_at(image, point) for point in points])


def averaged(image, size):
    """Return the mean over the pixels that each cell of a grid of `size` touches: [h * w]."""
    (height, width), (h, w) = image.shape, size
    cells = []
    for i in range(h):
        for j in range(w):
            rows = slice(floor(i * height / h), ceil((i + 1) * height / h))
            cells.append(image[rows, floor(j * width / w) : ceil((j + 1) * width / w)].mean())
    return torch.stack(cells)


def entropy_and_dice(x, y, valid):
    """x: logits; y: share of a point in the mask; valid: share of a point that counts."""
    p = x.sigmoid()
    # the target of the valid part, weighed by its size
    target = torch.where(valid > 0, y / valid.clamp(min=1e-12), 0.0)
    entropy = valid * F.binary_cross_entropy_with_logits(x, target, reduction="none")
    area = (valid * p).sum() + (valid * target).sum()
    dice = 1 - (2 * (valid * p * target).sum() + 1) / (area + 1)
    return entropy.sum() / valid.sum().clamp(min=1e-6), dice


def matching(x, y, valid, class_logits, labels):
    """Return [(query, mask)] of one image and level.

    x: values of the Q queries at the shared points; y: of the T masks.
    """
    cost = torch.zeros(len(x), len(y), dtype=torch.float64)
    for q in range(len(x)):
        for t in range(len(y)):
            entropy, dice = entropy_and_dice(x[q], y[t], valid)
            cost[q, t] = (
                -WEIGHTS["class"] * class_logits[q].softmax(-1)[labels[t]]
                + WEIGHTS["mask"] * entropy
                + WEIGHTS["dice"] * dice
            )
    queries, masks = linear_sum_assignment(cost.detach().numpy())
    return list(zip(queries.tolist(), masks.tolist(), strict=True))


def least_certain(logits, valid, number):
    keys = [
        abs(value) if share > 0 else float("inf")
        for value, share in zip(logits.tolist(), valid.tolist(), strict=True)
    ]
    return torch.tensor(sorted(range(len(keys)), key=keys.__getitem__)[:number], dtype=torch.int64)


def plain_eomt_loss(
    mask_logits, class_logits, masks, labels, *, points, drawn=(), shared=True, valid=None
):
    """Return {"loss", "loss_class", "loss_mask", "loss_dice"} of a batch on one process, float64.

    points: 0 for all pixels. drawn: with shared [[B, 3.25 P, 2]], else [[B, P, 2], [N, 3 P, 2], [N,
    P / 4, 2]], pairs in the order of image, level, query.
    """
    mask_logits, class_logits = mask_logits.double(), class_logits.double()
    masks = [image_masks.double() for image_masks in masks]
    images, levels, queries = mask_logits.shape[:3]
    num_classes, uncertain = class_logits.shape[-1] - 1, int(0.75 * points)
    size = mask_logits.shape[-2:]
    pixels = torch.ones(images, *masks[0].shape[1:]).double() if valid is None else valid.double()

    def valid_at(b, places):
        # beyond the border there is nothing that could be valid
        return values_at(pixels[b], places) / values_at(torch.ones_like(pixels[b]), places)

    entropy, dice, class_sum, class_weight, pairs = ZERO, ZERO, ZERO, ZERO, 0
    for b in range(images):
        for level in range(levels):
            logits = mask_logits[b, level]
            if points:
                common = drawn[0][b, :points]
                x = [values_at(image, common) for image in logits]
                y = [values_at(image, common) for image in masks[b]]
                level_valid = valid_at(b, common)
            else:
                x = [image.flatten() for image in logits]
                y = [averaged(image, size) for image in masks[b]]
                level_valid = averaged(pixels[b], size)
            matches = matching(x, y, level_valid, class_logits[b, level], labels[b])
            for q, t in matches:
                if points:
                    candidates = drawn[0][b, : 3 * points] if shared else drawn[1][pairs]
                    uniform = drawn[0][b, 3 * points :] if shared else drawn[2][pairs]
                    doubts = values_at(logits[q].detach(), candidates)
                    chosen = least_certain(doubts, valid_at(b, candidates), uncertain)
                    own = torch.cat([candidates[chosen], uniform])
                    terms = entropy_and_dice(
                        values_at(logits[q], own), values_at(masks[b][t], own), valid_at(b, own)
                    )
                else:
                    terms = entropy_and_dice(x[q], y[t], level_valid)
                entropy, dice, pairs = entropy + terms[0], dice + terms[1], pairs + 1
            target_of = {q: labels[b][t].item() for q, t in matches}
            for q in range(queries):
                weight = 1.0 if q in target_of else 0.1
                log_probabilities = class_logits[b, level, q].log_softmax(-1)
                class_sum = class_sum - weight * log_probabilities[target_of.get(q, num_classes)]
                class_weight = class_weight + weight
    divisor = max(1, pairs / levels)
    terms = {
        "class": class_sum / (class_weight / levels),
        "mask": entropy / divisor,
        "dice": dice / divisor,
    }
    losses = {f"loss_{name}": WEIGHTS[name] * value for name, value in terms.items()}
    return {"loss": sum(losses.values()), **losses}
