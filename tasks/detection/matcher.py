"""Which query answers for which true box: costs on the device, assignment and votes on the host."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch.nn import functional as F

from visionloop.tasks.detection.boxes import corners_of, iou_and_giou

# far above any real cost, and small enough that sums with it stay exact in float64
_COST_OF_NONSENSE = 1e6


@dataclass(frozen=True, eq=False)
class Matches:
    """Queries and the true boxes they answer for: rows of int64 arrays of one length, on the host.

    heads: which of the network's answers, or None where the pair holds for all of them; boxes:
    position among all true boxes of the batch.
    """

    images: np.ndarray
    queries: np.ndarray
    boxes: np.ndarray
    heads: np.ndarray | None = None

    def __len__(self):
        return len(self.images)


@torch.no_grad()
def matching_costs(heads, labels, boxes, images):
    """Cost of each query of each head for each true box of its own image, float32 [N, K, Q]; all finite.

    heads: [(logits [B, H, Q, C], boxes cxcywh [B, H, Q, 4])], K heads in all; labels [N], boxes
    cxcywh [N, 4], images [N]: the true boxes of the whole batch and whose image they are in. 2 x
    focal class cost + 5 x L1 - 2 x GIoU, as D-FINE's authors.
    """
    scores = torch.cat(
        [logits[images, :, :, labels] for logits, _ in heads], 1
    ).sigmoid_()  # [N, K, Q]
    coordinates = torch.cat([found.permute(3, 0, 1, 2) for _, found in heads], 2)[
        :, images
    ]  # [4, N, K, Q]
    true = boxes.t()[:, :, None, None]  # [4, N, 1, 1]
    cost = 2 * _class_cost(scores)
    cost.add_((coordinates - true).abs_().sum(0), alpha=5)
    cost.sub_(iou_and_giou(corners_of(coordinates), corners_of(true))[1], alpha=2)
    return cost.nan_to_num_(
        nan=_COST_OF_NONSENSE, posinf=_COST_OF_NONSENSE, neginf=_COST_OF_NONSENSE
    )


def _class_cost(p, alpha=0.25):
    """Focal loss as if the class were there, minus as if it were not (gamma 2). p: probabilities."""
    q = 1 - p
    return q.square().mul_((p + 1e-8).log_()).mul_(-alpha) + p.square().mul_(
        q.add_(1e-8).log_()
    ).mul_(1 - alpha)


def assign(costs, sizes):
    """Per image and head the cheapest one-to-one assignment (Hungarian), as Matches sorted by image, then head.

    costs: numpy [N, K, Q]; sizes: number of true boxes of each image. Each image and head gives
    min(Q, boxes) pairs.
    """
    found, start = [np.zeros((4, 0), np.int64)], 0
    for image, size in enumerate(sizes):
        for head in range(costs.shape[1] if size else 0):
            boxes, queries = linear_sum_assignment(costs[start : start + size, head])
            found.append(
                np.stack(
                    [np.full_like(boxes, image), queries, boxes + start, np.full_like(boxes, head)]
                )
            )
        start += size
    return Matches(*np.concatenate(found, 1))


def union(pairs):
    """Every query that any head matched, with the true box that most heads gave it; ties go to the first box.

    The "global optimal" set of D-FINE (`_get_go_indices`): a true box may have several queries, a
    query has one box.
    """
    (images, queries, boxes), votes = np.unique(
        np.stack([pairs.images, pairs.queries, pairs.boxes]), axis=1, return_counts=True
    )
    order = np.lexsort((boxes, -votes, queries, images))  # the winner of each query comes first
    images, queries, boxes = images[order], queries[order], boxes[order]
    first = np.ones(len(order), bool)
    first[1:] = (images[1:] != images[:-1]) | (queries[1:] != queries[:-1])
    return Matches(images[first], queries[first], boxes[first])


# What the network said and what was true, in the layout that the criterion computes in.


@dataclass(frozen=True, eq=False)
class Answers:
    """All heads of one forward in fp32; T = Nd + Q queries, the Nd denoising ones first.

    H heads of the decoder ("pre" first where there is one more than layers), K = H + 1 with the
    encoder's proposals, L layers.
    """

    logits: torch.Tensor  # [B, H, T, C]
    boxes: torch.Tensor  # [B, K, T, 4], cxcywh; the proposals have nothing at denoising queries
    proposals: torch.Tensor | None  # [B, Q, C], class logits of the encoder
    edges: torch.Tensor  # [B, L, T, 4, bins], logits over the bins of left, top, right, bottom
    references: (
        torch.Tensor
    )  # [B, T, 4], cxcywh, that the edges count from; the same for all layers
    num_denoising: int

    @classmethod
    def read(cls, outputs):
        """From the library's DFineModelOutput, or anything with the same attributes, in train or eval form."""
        logits, boxes = (
            outputs.intermediate_logits.float(),
            outputs.intermediate_reference_points.float(),
        )
        edges = outputs.intermediate_predicted_corners.float()
        denoising = outputs.denoising_meta_values
        num_denoising = denoising["dn_num_split"][0] if denoising else 0
        proposals = outputs.enc_topk_logits
        if proposals is not None:
            proposals = proposals.float()
            # as one more head; twelve bytes a query are cheaper than a second round of everything
            boxes = torch.cat(
                [boxes, F.pad(outputs.enc_topk_bboxes.float(), (0, 0, num_denoising, 0))[:, None]],
                1,
            )
        references = outputs.initial_reference_points[:, 0].detach().float()
        return cls(
            logits, boxes, proposals, edges.unflatten(-1, (4, -1)), references, num_denoising
        )

    @property
    def num_queries(self):
        """Q: without those of denoising."""
        return self.logits.shape[2] - self.num_denoising

    @property
    def layer_heads(self):
        """Which of the H heads are the decoder layers."""
        return slice(self.logits.shape[1] - self.edges.shape[1], self.logits.shape[1])

    def normal_heads(self):
        """[(logits [B, H, Q, C], boxes [B, H, Q, 4])] without denoising: the decoder's, then the encoder's."""
        num_heads, boxes = self.logits.shape[1], self.boxes[:, :, self.num_denoising :]
        heads = [(self.logits[:, :, self.num_denoising :], boxes[:, :num_heads])]
        if self.proposals is not None:
            heads.append((self.proposals[:, None], boxes[:, num_heads:]))
        return heads


@dataclass(frozen=True, eq=False)
class Targets:
    """The true boxes of all images of a batch, one after another."""

    labels: torch.Tensor  # int64 [N]
    boxes: torch.Tensor  # float32 [N, 4], cxcywh
    sizes: tuple  # boxes in each image, on the host

    @classmethod
    def join(cls, targets):
        """targets: [{"class_labels": [G], "boxes": [G, 4]}]. Reads shapes only."""
        labels = torch.cat([target["class_labels"] for target in targets])
        boxes = torch.cat([target["boxes"] for target in targets]).float()
        return cls(labels, boxes, tuple(len(target["class_labels"]) for target in targets))

    def __len__(self):
        return sum(self.sizes)

    def images(self):
        """Whose image each box is in: int64 [N], on the host."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)


# Who answers for which true box: every query's own, the union over the heads, and the fixed pairs
# of denoising.


@dataclass(frozen=True, eq=False)
class Denoised:
    """The queries that were made from true boxes, and which. P pairs; queries that were made to be rejected are not among them."""

    truth: Targets
    images: np.ndarray  # int64 [P]
    boxes: np.ndarray  # int64 [P], position in `truth`
    queries: torch.Tensor | None  # int64 [P], on the device
    groups: int  # copies of each box

    @classmethod
    def read(cls, meta, targets):
        """meta: the network's `denoising_meta_values` or None; targets: what the queries were made of. Reads shapes only."""
        if not meta:
            nothing = np.zeros(0, np.int64)
            return cls(
                Targets.join([{name: values[:0] for name, values in targets[0].items()}]),
                nothing,
                nothing,
                None,
                1,
            )
        truth, groups = Targets.join(targets), meta["dn_num_group"]
        numbers = [len(queries) for queries in meta["dn_positive_idx"]]
        if numbers != [size * groups for size in truth.sizes]:
            raise ValueError(
                f"{groups} groups of denoising queries with {numbers} positives were not made of {list(truth.sizes)} boxes"
            )
        images, queries = (
            np.repeat(np.arange(len(numbers)), numbers),
            torch.cat(list(meta["dn_positive_idx"])),
        )
        boxes = [
            np.tile(np.arange(first, last), groups)
            for first, last in pairwise(np.cumsum([0, *truth.sizes]))
        ]
        return cls(truth, images, np.concatenate(boxes), queries, groups)

    def __len__(self):
        return len(self.images)


@dataclass(frozen=True, eq=False)
class Matching:
    """Matches of the batch as int64 tensors on the device; queries count from the first denoising one.

    own: of each head by itself, (images, heads, queries, boxes), the encoder's last, from `num_own`
    on. shared: (images, queries, boxes) that hold for all heads, first the union (`num_union` of
    them), then denoising. Boxes point into `labels` [N] and `boxes` [N, 4].
    """

    labels: torch.Tensor
    boxes: torch.Tensor
    own: tuple
    num_own: int
    shared: tuple
    num_union: int


def match_predictions(answers, truth, denoised):
    """The Matching of `Answers` with `Targets` and `Denoised`. Copies all costs to the host in one read; the rest is host to device."""
    device, num_heads = answers.logits.device, answers.logits.shape[1]
    images, denoised_images, denoised_boxes = to_device(
        [truth.images(), denoised.images, denoised.boxes + len(truth)], device
    )
    costs = matching_costs(answers.normal_heads(), truth.labels, truth.boxes, images)
    own = assign(costs.cpu().numpy(), truth.sizes)
    joint = union(own)
    order = np.argsort(own.heads >= num_heads, kind="stable")
    skip = answers.num_denoising
    sent = [own.images[order], own.heads[order], own.queries[order] + skip, own.boxes[order]]
    *on_device, joint_images, joint_queries, joint_boxes = to_device(
        [*sent, joint.images, joint.queries + skip, joint.boxes], device
    )
    shared = (joint_images, joint_queries, joint_boxes)
    if len(denoised):
        pairs = (denoised_images, denoised.queries, denoised_boxes)
        shared = tuple(
            torch.cat([first, second]) for first, second in zip(shared, pairs, strict=True)
        )
    labels, boxes = (
        torch.cat([getattr(truth, name), getattr(denoised.truth, name)])
        for name in ("labels", "boxes")
    )
    return Matching(
        labels, boxes, tuple(on_device), int((own.heads < num_heads).sum()), shared, len(joint)
    )


def to_device(arrays, device):
    """Host arrays of integers as int64 tensors on the device, in one copy that the host does not wait for."""
    joined = torch.from_numpy(np.concatenate(arrays).astype(np.int64, copy=False))
    return joined.to(device, non_blocking=True).split([len(array) for array in arrays])
