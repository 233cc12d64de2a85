"""Hungarian matching of predicted masks and ground-truth masks, at every level of EoMT.

A level is one prediction of the network: before each query block, and at the end.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

# replaces costs that are not finite: far above any real cost, and small enough that sums with it
# stay exact in float64
_NONFINITE_COST = 1e6


@dataclass(frozen=True, eq=False)
class Matches:
    """Pairs of a query and a ground-truth mask, one per row, sorted by image, level and query.

    images, levels, queries: int64 [N], the query of the pair.
    targets: int64 [N], its mask, by position among those of the image.
    sizes: number of pairs of each image, on the host.
    """

    images: torch.Tensor
    levels: torch.Tensor
    queries: torch.Tensor
    targets: torch.Tensor
    sizes: list[int]


class HungarianMatcher:
    """Match queries to ground-truth masks one to one, at the lowest total cost.

    The cost is the weighted sum of minus the class probability, mask cross-entropy and dice, as in
    Mask2Former (arXiv:2112.01527) and EoMT.

    Args:
        weights: of the three terms.
    """

    def __init__(self, weights: tuple[float, float, float]) -> None:
        self.cost_class, self.cost_mask, self.cost_dice = weights

    def __call__(
        self,
        logits: torch.Tensor,
        targets: torch.Tensor,
        valid: torch.Tensor | None,
        log_probabilities: torch.Tensor,
        labels: torch.Tensor,
        sizes: Sequence[int],
    ) -> Matches:
        """Match all images and levels of a batch.

        All costs go to the host in one copy, the only host sync. Arguments: see `matching_costs`
        and `hungarian_matches`.
        """
        costs = self.matching_costs(logits, targets, valid, log_probabilities, labels)
        return hungarian_matches(costs, sizes)

    @torch.no_grad()
    def matching_costs(
        self,
        logits: torch.Tensor,
        targets: torch.Tensor,
        valid: torch.Tensor | None,
        log_probabilities: torch.Tensor,
        labels: torch.Tensor,
    ) -> torch.Tensor:
        """Compute the cost of every query and level for each ground-truth mask of its own image.

        Args:
            logits: mask logits of an image's queries at P points that they share, [B, S*Q, P].
            targets: the ground-truth masks at these points, 0..1, [B, T, P].
            valid: share of each point that is not ignored, [B, P]; None: nothing is ignored.
            log_probabilities: of the classes and "no object", [B, S, Q, K + 1].
            labels: classes of the masks, int64 [B, T].

        Returns:
            float32 [B, S, Q, T], all finite.
        """
        num_levels, num_queries = log_probabilities.shape[1:3]
        valid = torch.ones_like(logits[:, :1]) if valid is None else valid[:, None]  # [B, 1, P]
        columns = torch.cat([targets, valid], 1).mT  # sums over all points are one more column
        sums, number = columns.sum(1, keepdim=True).split((targets.shape[1], 1), -1)
        probability = logits.sigmoid()
        # [B, S*Q, T + 1]
        logit_sums, probability_sums = logits @ columns, probability @ columns
        # softplus(x) = (x + |x|) / 2 - log(max(p, 1 - p)); in place, for these are the largest
        # tensors of all
        log_max = probability.sub_(0.5).abs_().add_(0.5).log_()
        softplus_sums = (logit_sums[..., -1:] + logits.abs() @ valid.mT) / 2 - log_max @ valid.mT
        # y softplus(-x) + (1 - y) softplus(x) = softplus(x) - x y
        entropy = (softplus_sums - logit_sums[..., :-1]) / number.clamp(min=1e-6)
        dice = 1 - (2 * probability_sums[..., :-1] + 1) / (probability_sums[..., -1:] + sums + 1)
        masks = self.cost_mask * entropy + self.cost_dice * dice
        index = labels[:, None, None].expand(-1, num_levels, num_queries, -1)
        classes = log_probabilities.gather(-1, index).exp()
        cost = masks.unflatten(1, (num_levels, num_queries)) - self.cost_class * classes
        return cost.nan_to_num_(nan=_NONFINITE_COST, posinf=_NONFINITE_COST, neginf=_NONFINITE_COST)


def hungarian_matches(costs: torch.Tensor, sizes: Sequence[int]) -> Matches:
    """Solve the assignment of each image and level.

    Costs one copy to the host, if there is any mask, and one back that does not block.

    Args:
        costs: [B, S, Q, T], see `HungarianMatcher.matching_costs`.
        sizes: number of ground-truth masks of each image.

    Returns:
        min(Q, masks of the image) pairs for each image and level, on the device of the costs.
    """
    pairs = [np.zeros((4, 0), np.int64)]
    on_host = costs.cpu().numpy() if any(sizes) else None
    for image, size in enumerate(sizes):
        if on_host is None or not size:
            continue
        for level in range(costs.shape[1]):
            queries, targets = linear_sum_assignment(on_host[image, level, :, :size])
            images, levels = np.full_like(queries, image), np.full_like(queries, level)
            pairs.append(np.stack([images, levels, queries, targets]))
    rows = torch.from_numpy(np.concatenate(pairs, 1)).to(costs.device, non_blocking=costs.is_cuda)
    pair_counts = [costs.shape[1] * min(costs.shape[2], size) for size in sizes]
    images, levels, queries, targets = rows
    return Matches(images, levels, queries, targets, sizes=pair_counts)
