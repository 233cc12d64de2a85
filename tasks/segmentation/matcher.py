"""Which query answers for which true mask: costs on the device, assignment on the host."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

# far above any real cost, and small enough that sums with it stay exact in float64
_COST_OF_NONSENSE = 1e6


@dataclass(frozen=True, eq=False)
class Matches:
    """Queries and the true masks they answer for: int64 [N] each, sorted by image, level, query.

    targets: place of the mask in its image. sizes: pairs of each image, known to the host.
    """

    images: torch.Tensor
    levels: torch.Tensor
    queries: torch.Tensor
    targets: torch.Tensor
    sizes: list[int]


def softplus(logits):
    """log(1 + exp(x)): torch's takes four times as long on a CPU (log1p is not vectorised). Exact to 1e-7, its gradient at 0 is 1/2."""
    size = logits.abs()
    return (logits + size) / 2 - size.sigmoid().log()


@torch.no_grad()
def matching_costs(x, y, known, log_classes, labels, weights):
    """Cost of each query of each level for each true mask of its own image, float32 [B, S, Q, T]; all finite.

    x: mask logits [B, S*Q, P]; y: [B, T, P]; known: [B, P] or None (see `points`); log_classes: [B,
    S, Q, K + 1], log-probabilities; labels: [B, T]. weights: of minus the class's probability,
    cross-entropy and dice.
    """
    num_levels, num_queries = log_classes.shape[1:3]
    known = torch.ones_like(x[:, :1]) if known is None else known[:, None]  # [B, 1, P]
    columns = torch.cat([y, known], 1).mT  # sums over all points are one more column
    sums, number = columns.sum(1, keepdim=True).split((y.shape[1], 1), -1)
    probability = x.sigmoid()
    logit_sums, probability_sums = x @ columns, probability @ columns  # [B, S*Q, T + 1]
    # softplus(x) = (x + |x|) / 2 - log(max(p, 1 - p)); in place, for these are the largest tensors
    # of all
    peak = probability.sub_(0.5).abs_().add_(0.5).log_()
    surplus = (logit_sums[..., -1:] + x.abs() @ known.mT) / 2 - peak @ known.mT
    # y softplus(-x) + (1 - y) softplus(x) = softplus(x) - x y
    entropy = (surplus - logit_sums[..., :-1]) / number.clamp(min=1e-6)
    dice = 1 - (2 * probability_sums[..., :-1] + 1) / (probability_sums[..., -1:] + sums + 1)
    masks = (weights[1] * entropy + weights[2] * dice).unflatten(1, (num_levels, num_queries))
    index = labels[:, None, None].expand(-1, num_levels, num_queries, -1)
    cost = masks - weights[0] * log_classes.gather(-1, index).exp()
    return cost.nan_to_num_(
        nan=_COST_OF_NONSENSE, posinf=_COST_OF_NONSENSE, neginf=_COST_OF_NONSENSE
    )


def assign(costs, sizes):
    """The cheapest one-to-one assignment (Hungarian) of each image and level, as Matches on the device of the costs.

    costs: [B, S, Q, T]; sizes: true masks of each image. Each image and level gives min(Q,
    masks) pairs. Costs one copy to the host, if there is any mask, and one back.
    """
    found = [np.zeros((4, 0), np.int64)]
    on_host = costs.cpu().numpy() if any(sizes) else None
    for image, size in enumerate(sizes):
        for level in range(costs.shape[1] if size else 0):
            queries, targets = linear_sum_assignment(on_host[image, level, :, :size])
            found.append(
                np.stack(
                    [np.full_like(queries, image), np.full_like(queries, level), queries, targets]
                )
            )
    pairs = torch.from_numpy(np.concatenate(found, 1)).to(costs.device, non_blocking=True)
    return Matches(*pairs, sizes=[costs.shape[1] * min(costs.shape[2], size) for size in sizes])
