"""Which query answers for which true box: costs on the device, assignment and votes on the host."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from visionloop.tasks.detection.boxes import corners_of, iou_and_giou

# far above any real cost, and small enough that sums with it stay exact in float64
_COST_OF_NONSENSE = 1e6


@dataclass(frozen=True, eq=False)
class Pairs:
    """Queries and the true boxes they answer for: rows of int64 arrays of one length, on the host.

    heads: which of the network's answers, or None where the pair holds for all of them; boxes: position among all true boxes of the batch.
    """

    images: np.ndarray
    queries: np.ndarray
    boxes: np.ndarray
    heads: np.ndarray | None = None

    def __len__(self):
        return len(self.images)


@torch.no_grad()
def matching_costs(heads, labels, boxes, images):
    """Cost of each query of each head for each true box of its own picture, float32 [N, K, Q]; all finite.

    heads: [(logits [B, H, Q, C], boxes cxcywh [B, H, Q, 4])], K heads in all; labels [N], boxes cxcywh [N, 4], images [N]: the true boxes
    of the whole batch and whose picture they are in. 2 x focal class cost + 5 x L1 - 2 x GIoU, as D-FINE's authors.
    """
    scores = torch.cat([logits[images, :, :, labels] for logits, _ in heads], 1).sigmoid_()  # [N, K, Q]
    coordinates = torch.cat([found.permute(3, 0, 1, 2) for _, found in heads], 2)[:, images]  # [4, N, K, Q]
    true = boxes.t()[:, :, None, None]  # [4, N, 1, 1]
    cost = 2 * _class_cost(scores)
    cost.add_((coordinates - true).abs_().sum(0), alpha=5)
    cost.sub_(iou_and_giou(corners_of(coordinates), corners_of(true))[1], alpha=2)
    return cost.nan_to_num_(nan=_COST_OF_NONSENSE, posinf=_COST_OF_NONSENSE, neginf=_COST_OF_NONSENSE)


def _class_cost(p, alpha=0.25):
    """Focal loss as if the class were there, minus as if it were not (gamma 2). p: probabilities."""
    q = 1 - p
    return q.square().mul_((p + 1e-8).log_()).mul_(-alpha) + p.square().mul_(q.add_(1e-8).log_()).mul_(1 - alpha)


def assign(costs, sizes):
    """Per picture and head the cheapest one-to-one assignment (Hungarian), as Pairs sorted by picture, then head.

    costs: numpy [N, K, Q]; sizes: number of true boxes of each picture. Each picture and head gives min(Q, boxes) pairs.
    """
    found, start = [np.zeros((4, 0), np.int64)], 0
    for image, size in enumerate(sizes):
        for head in range(costs.shape[1] if size else 0):
            boxes, queries = linear_sum_assignment(costs[start : start + size, head])
            found.append(np.stack([np.full_like(boxes, image), queries, boxes + start, np.full_like(boxes, head)]))
        start += size
    return Pairs(*np.concatenate(found, 1))


def union(pairs):
    """Every query that any head matched, with the true box that most heads gave it; ties go to the first box.

    The "global optimal" set of D-FINE (`_get_go_indices`): a true box may have several queries, a query has one box.
    """
    (images, queries, boxes), votes = np.unique(np.stack([pairs.images, pairs.queries, pairs.boxes]), axis=1, return_counts=True)
    order = np.lexsort((boxes, -votes, queries, images))  # the winner of each query comes first
    images, queries, boxes = images[order], queries[order], boxes[order]
    first = np.ones(len(order), bool)
    first[1:] = (images[1:] != images[:-1]) | (queries[1:] != queries[:-1])
    return Pairs(images[first], queries[first], boxes[first])
