"""Hungarian matching of decoder outputs and ground-truth boxes.

D-FINE has several heads: every decoder layer, the layer before the first ("pre") and the proposals
of the encoder. `HungarianMatcher` matches each head by itself, which the class loss uses, and
forms the union of these matches, which the box and distribution losses share (GO-LSD, section 4.2
of arXiv:2410.13842). Denoising queries need no matching: they were made from ground-truth boxes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch.nn import functional as F

from visionloop.tasks.detection.boxes import corners_of, iou_and_giou

if TYPE_CHECKING:
    from transformers.models.d_fine.modeling_d_fine import DFineModelOutput

# replaces costs that are not finite: far above any real cost, and small enough that sums with it
# stay exact in float64
_NONFINITE_COST = 1e6

# (class logits [B, H, Q, C], boxes cxcywh [B, H, Q, 4]) of H heads
HeadOutputs = tuple[torch.Tensor, torch.Tensor]


class HungarianMatcher:
    """Match queries to ground-truth boxes one to one, at the lowest total cost.

    The cost is 2 x focal class cost + 5 x L1 distance - 2 x generalized IoU, as in D-FINE
    (configs/dfine/include/dfine_hgnetv2.yml of `Peterande/D-FINE`). The `--weight-*` options are
    weights of the loss: they do not change this cost.
    """

    cost_class = 2.0
    cost_bbox = 5.0
    cost_giou = 2.0

    def __call__(
        self, outputs: ModelOutputs, targets: Targets, denoising: DenoisingQueries
    ) -> Matching:
        """Match all heads of a batch.

        All costs are copied to the host at once, the only host sync; results go back without one.
        """
        device, num_heads = outputs.logits.device, outputs.logits.shape[1]
        images, denoising_images, denoising_boxes = to_device(
            [targets.images(), denoising.images, denoising.boxes + len(targets)], device
        )
        costs = self.matching_costs(outputs.matched_heads(), targets.labels, targets.boxes, images)
        matches = hungarian_matches(costs.cpu().numpy(), targets.sizes)
        union = union_over_heads(matches)
        order = np.argsort(matches.heads >= num_heads, kind="stable")  # the encoder's last
        offset = outputs.num_denoising
        *per_head, union_images, union_queries, union_boxes = to_device(
            [
                matches.images[order],
                matches.heads[order],
                matches.queries[order] + offset,
                matches.boxes[order],
                union.images,
                union.queries + offset,
                union.boxes,
            ],
            device,
        )
        shared: tuple[torch.Tensor, ...] = (union_images, union_queries, union_boxes)
        if denoising.queries is not None:
            fixed = (denoising_images, denoising.queries, denoising_boxes)
            shared = tuple(torch.cat(pair) for pair in zip(shared, fixed, strict=True))
        return Matching(
            labels=torch.cat([targets.labels, denoising.targets.labels]),
            boxes=torch.cat([targets.boxes, denoising.targets.boxes]),
            per_head=tuple(per_head),
            num_decoder=int((matches.heads < num_heads).sum()),
            shared=shared,
            num_union=len(union),
        )

    @torch.no_grad()
    def matching_costs(
        self,
        heads: Sequence[HeadOutputs],
        labels: torch.Tensor,
        boxes: torch.Tensor,
        images: torch.Tensor,
    ) -> torch.Tensor:
        """Compute the cost of every query and head for each ground-truth box of its own image.

        Args:
            heads: (logits [B, H, Q, C], boxes cxcywh [B, H, Q, 4]), K heads in all.
            labels: int64 [N], of the ground-truth boxes of the whole batch.
            boxes: float32 [N, 4], cxcywh.
            images: int64 [N], the image that each box is in.

        Returns:
            float32 [N, K, Q], all finite.
        """
        # [N, K, Q]
        p = torch.cat([logits[images, :, :, labels] for logits, _ in heads], 1).sigmoid_()
        # [4, N, K, Q]
        predicted = torch.cat([head_boxes.permute(3, 0, 1, 2) for _, head_boxes in heads], 2)
        predicted = predicted[:, images]
        target = boxes.t()[:, :, None, None]  # [4, N, 1, 1]
        cost = self.cost_class * focal_class_cost(p)
        cost.add_((predicted - target).abs_().sum(0), alpha=self.cost_bbox)
        _, giou = iou_and_giou(corners_of(predicted.unbind()), corners_of(target.unbind()))
        cost.sub_(giou, alpha=self.cost_giou)
        return cost.nan_to_num_(nan=_NONFINITE_COST, posinf=_NONFINITE_COST, neginf=_NONFINITE_COST)


def focal_class_cost(p: torch.Tensor, alpha: float = 0.25) -> torch.Tensor:
    """Return the focal loss of a positive minus that of a negative, gamma 2. p: probabilities."""
    q = 1 - p
    positive = q.square().mul_((p + 1e-8).log_()).mul_(-alpha)
    return positive + p.square().mul_(q.add_(1e-8).log_()).mul_(1 - alpha)


@dataclass(frozen=True, eq=False)
class Matches:
    """Pairs of a query and a ground-truth box, one per row; int64 arrays [P] on the host.

    images: the image of the pair.
    queries: its query, without those of denoising.
    boxes: its ground-truth box, by position among those of the whole batch.
    heads: the head that matched them; empty for the union over heads.
    """

    images: NDArray[np.int64]
    queries: NDArray[np.int64]
    boxes: NDArray[np.int64]
    heads: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.images)


def hungarian_matches(costs: NDArray[np.float32], sizes: Sequence[int]) -> Matches:
    """Solve the assignment of each image and head; the pairs are sorted by image, then head.

    Args:
        costs: [N, K, Q], see `HungarianMatcher.matching_costs`.
        sizes: number of ground-truth boxes of each image.

    Returns:
        min(Q, boxes of the image) pairs for each image and head.
    """
    pairs, start = [np.zeros((4, 0), np.int64)], 0
    for image, size in enumerate(sizes):
        for head in range(costs.shape[1] if size else 0):
            boxes, queries = linear_sum_assignment(costs[start : start + size, head])
            images, heads = np.full_like(boxes, image), np.full_like(boxes, head)
            pairs.append(np.stack([images, queries, boxes + start, heads]))
        start += size
    return Matches(*np.concatenate(pairs, 1))


def union_over_heads(matches: Matches) -> Matches:
    """Return every matched query with the box that most heads matched it to; ties: the first box.

    This is the "global optimal" set of D-FINE (`_get_go_indices`): a box may have several queries,
    a query has one box.
    """
    (images, queries, boxes), votes = np.unique(
        np.stack([matches.images, matches.queries, matches.boxes]), axis=1, return_counts=True
    )
    order = np.lexsort((boxes, -votes, queries, images))  # the winner of each query comes first
    images, queries, boxes = images[order], queries[order], boxes[order]
    first = np.ones(len(order), bool)
    first[1:] = (images[1:] != images[:-1]) | (queries[1:] != queries[:-1])
    no_heads = np.zeros(0, np.int64)
    return Matches(images[first], queries[first], boxes[first], no_heads)


@dataclass(frozen=True, eq=False)
class Matching:
    """All matches of a batch as int64 tensors on the device.

    Queries count from the first denoising query on; boxes point into `labels` and `boxes`, which
    hold the targets of the batch and then those of denoising.

    labels: int64 [N].
    boxes: float32 [N, 4], cxcywh.
    per_head: (images, heads, queries, boxes) of each head's own matches, those of the decoder
        first and those of the encoder last.
    num_decoder: how many of them belong to the decoder.
    shared: (images, queries, boxes) that all heads use: the union, then denoising.
    num_union: how many of them belong to the union.
    """

    labels: torch.Tensor
    boxes: torch.Tensor
    per_head: tuple[torch.Tensor, ...]
    num_decoder: int
    shared: tuple[torch.Tensor, ...]
    num_union: int


@dataclass(frozen=True, eq=False)
class ModelOutputs:
    """The outputs of all heads of one forward, in fp32.

    There are T = Nd + Q queries, the Nd of denoising first; H heads of the decoder ("pre" first
    where there is one head more than layers), K = H + 1 with the proposals of the encoder; L
    decoder layers.

    logits: [B, H, T, C], class logits.
    boxes: [B, K, T, 4], cxcywh in 0..1; zero for the proposals at denoising queries.
    proposals: [B, Q, C], class logits of the encoder, or None.
    corners: [B, L, T, 4, bins], logits over the bins of left, top, right and bottom.
    references: [B, T, 4], cxcywh, the boxes that the corners refine; the same for all layers.
    num_denoising: Nd.
    """

    logits: torch.Tensor
    boxes: torch.Tensor
    proposals: torch.Tensor | None
    corners: torch.Tensor
    references: torch.Tensor
    num_denoising: int

    @classmethod
    def from_outputs(cls, outputs: DFineModelOutput) -> ModelOutputs:
        """Read the outputs of a forward in train or eval mode."""
        logits = outputs.intermediate_logits.float()
        boxes = outputs.intermediate_reference_points.float()
        corners = outputs.intermediate_predicted_corners.float()
        denoising = outputs.denoising_meta_values
        num_denoising = denoising["dn_num_split"][0] if denoising else 0
        proposals = outputs.enc_topk_logits
        if proposals is not None:
            proposals = proposals.float()
            # as one more head: 12 bytes per query cost less than a second pass of all operations
            proposal_boxes = F.pad(outputs.enc_topk_bboxes.float(), (0, 0, num_denoising, 0))
            boxes = torch.cat([boxes, proposal_boxes[:, None]], 1)
        references = outputs.initial_reference_points[:, 0].detach().float()
        corners = corners.unflatten(-1, (4, -1))
        return cls(logits, boxes, proposals, corners, references, num_denoising)

    @property
    def num_queries(self) -> int:
        """Return Q, the number of queries without those of denoising."""
        return self.logits.shape[2] - self.num_denoising

    @property
    def layer_heads(self) -> slice[int, int, None]:
        """Return the slice of the H heads that are decoder layers."""
        return slice(self.logits.shape[1] - self.corners.shape[1], self.logits.shape[1])

    def matched_heads(self) -> list[HeadOutputs]:
        """Return the outputs of all heads without denoising queries, those of the encoder last."""
        num_heads, boxes = self.logits.shape[1], self.boxes[:, :, self.num_denoising :]
        heads = [(self.logits[:, :, self.num_denoising :], boxes[:, :num_heads])]
        if self.proposals is not None:
            heads.append((self.proposals[:, None], boxes[:, num_heads:]))
        return heads


@dataclass(frozen=True, eq=False)
class Targets:
    """The ground-truth boxes of all images of a batch, one image after the other.

    labels: int64 [N].
    boxes: float32 [N, 4], cxcywh in 0..1.
    sizes: number of boxes of each image, on the host.
    """

    labels: torch.Tensor
    boxes: torch.Tensor
    sizes: tuple[int, ...]

    @classmethod
    def concatenate(cls, targets: Sequence[Mapping[str, torch.Tensor]]) -> Targets:
        """Concatenate [{"class_labels": [G], "boxes": [G, 4]}]. No host sync: reads shapes only."""
        labels = torch.cat([target["class_labels"] for target in targets])
        boxes = torch.cat([target["boxes"] for target in targets]).float()
        return cls(labels, boxes, tuple(len(target["class_labels"]) for target in targets))

    def __len__(self) -> int:
        return sum(self.sizes)

    def images(self) -> NDArray[np.int64]:
        """Return the image that each box is in, int64 [N], on the host."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)


class DenoisingMeta(TypedDict):
    """The layout of the denoising queries in outputs of transformers, `denoising_meta_values`.

    dn_positive_idx: the positive queries of each image, group by group, int64 tensors.
    dn_num_group: number of groups, each with every ground-truth box.
    dn_num_split: [denoising queries, normal queries].
    """

    dn_positive_idx: Sequence[torch.Tensor]
    dn_num_group: int
    dn_num_split: Sequence[int]


@dataclass(frozen=True, eq=False)
class DenoisingQueries:
    """The positive denoising queries, and the ground-truth boxes that they were made from.

    Negative ones, which the model has to reject, are not among the P pairs.

    targets: the boxes that queries were made from.
    images: int64 [P], on the host.
    boxes: int64 [P], positions in `targets`, on the host.
    queries: int64 [P], on the device; None without denoising.
    groups: queries of each box.
    """

    targets: Targets
    images: NDArray[np.int64]
    boxes: NDArray[np.int64]
    queries: torch.Tensor | None
    groups: int

    @classmethod
    def from_meta_values(
        cls,
        meta: DenoisingMeta | None,
        targets: Sequence[Mapping[str, torch.Tensor]],
    ) -> DenoisingQueries:
        """Read the layout of the denoising queries. No host sync: reads shapes only.

        Args:
            meta: of the outputs, None without denoising.
            targets: the boxes that the queries were made from, as in `Targets.concatenate`.

        Raises:
            ValueError: the queries were made from other boxes.
        """
        if not meta:
            empty = [{name: rows[:0] for name, rows in targets[0].items()}]
            no_pairs = np.zeros(0, np.int64)
            return cls(Targets.concatenate(empty), no_pairs, no_pairs, None, 1)
        all_targets, groups = Targets.concatenate(targets), meta["dn_num_group"]
        counts = [len(queries) for queries in meta["dn_positive_idx"]]
        if counts != [size * groups for size in all_targets.sizes]:
            raise ValueError(
                f"{groups} groups of denoising queries with {counts} positives were not made of "
                f"{list(all_targets.sizes)} boxes"
            )
        images = np.repeat(np.arange(len(counts)), counts)
        queries = torch.cat(list(meta["dn_positive_idx"]))
        stops = np.cumsum([0, *all_targets.sizes])
        boxes = [np.tile(np.arange(start, stop), groups) for start, stop in pairwise(stops)]
        return cls(all_targets, images, np.concatenate(boxes), queries, groups)

    def __len__(self) -> int:
        return len(self.images)


def to_device(arrays: Sequence[NDArray[np.int64]], device: torch.device) -> Sequence[torch.Tensor]:
    """Copy integer arrays to the device as int64 tensors, in one copy that does not block."""
    concatenated = torch.from_numpy(np.concatenate(arrays).astype(np.int64, copy=False))
    return concatenated.to(device, non_blocking=device.type == "cuda").split(
        [len(array) for array in arrays]
    )
