"""Who answers for which true box: every query's own, the union over the heads, and the fixed pairs of denoising."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from visionloop.tasks.detection.answers import Truth
from visionloop.tasks.detection.matcher import assign, matching_costs, union


@dataclass(frozen=True, eq=False)
class Denoised:
    """The queries that were made from true boxes, and which. P pairs; queries that were made to be rejected are not among them."""

    truth: Truth
    images: np.ndarray  # int64 [P]
    boxes: np.ndarray  # int64 [P], position in `truth`
    queries: torch.Tensor | None  # int64 [P], on the device
    groups: int  # copies of each box

    @classmethod
    def read(cls, meta, targets):
        """meta: the network's `denoising_meta_values` or None; targets: what the queries were made of. Reads shapes only."""
        if not meta:
            nothing = np.zeros(0, np.int64)
            return cls(Truth.join([{name: values[:0] for name, values in targets[0].items()}]), nothing, nothing, None, 1)
        truth, groups = Truth.join(targets), meta["dn_num_group"]
        numbers = [len(queries) for queries in meta["dn_positive_idx"]]
        if numbers != [size * groups for size in truth.sizes]:
            raise ValueError(f"{groups} groups of denoising queries with {numbers} positives were not made of {list(truth.sizes)} boxes")
        images, queries = np.repeat(np.arange(len(numbers)), numbers), torch.cat(list(meta["dn_positive_idx"]))
        boxes = [np.tile(np.arange(first, last), groups) for first, last in pairwise(np.cumsum([0, *truth.sizes]))]
        return cls(truth, images, np.concatenate(boxes), queries, groups)

    def __len__(self):
        return len(self.images)


@dataclass(frozen=True, eq=False)
class Pairing:
    """Pairs of the batch as int64 tensors on the device; queries count from the first denoising one.

    own: of each head by itself, (images, heads, queries, boxes), the encoder's last, from `num_own` on. shared: (images, queries, boxes)
    that hold for all heads, first the union (`num_union` of them), then denoising. Boxes point into `labels` [N] and `boxes` [N, 4].
    """

    labels: torch.Tensor
    boxes: torch.Tensor
    own: tuple
    num_own: int
    shared: tuple
    num_union: int


def pair_up(answers, truth, denoised):
    """The Pairing of `Answers` with `Truth` and `Denoised`. Copies all costs to the host in one read; the rest is host to device."""
    device, num_heads = answers.logits.device, answers.logits.shape[1]
    images, denoised_images, denoised_boxes = to_device([truth.images(), denoised.images, denoised.boxes + len(truth)], device)
    costs = matching_costs(answers.normal_heads(), truth.labels, truth.boxes, images)
    own = assign(costs.cpu().numpy(), truth.sizes)
    joint = union(own)
    order = np.argsort(own.heads >= num_heads, kind="stable")
    skip = answers.num_denoising
    sent = [own.images[order], own.heads[order], own.queries[order] + skip, own.boxes[order]]
    *on_device, joint_images, joint_queries, joint_boxes = to_device([*sent, joint.images, joint.queries + skip, joint.boxes], device)
    shared = (joint_images, joint_queries, joint_boxes)
    if len(denoised):
        pairs = (denoised_images, denoised.queries, denoised_boxes)
        shared = tuple(torch.cat([first, second]) for first, second in zip(shared, pairs, strict=True))
    labels, boxes = (torch.cat([getattr(truth, name), getattr(denoised.truth, name)]) for name in ("labels", "boxes"))
    return Pairing(labels, boxes, tuple(on_device), int((own.heads < num_heads).sum()), shared, len(joint))


def to_device(arrays, device):
    """Host arrays of integers as int64 tensors on the device, in one copy that the host does not wait for."""
    joined = torch.from_numpy(np.concatenate(arrays).astype(np.int64, copy=False))
    return joined.to(device, non_blocking=True).split([len(array) for array in arrays])
