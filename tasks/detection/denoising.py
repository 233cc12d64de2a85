"""Denoising queries: noisy ground-truth boxes that the decoder has to repair.

D-FINE takes them from DINO (arXiv:2203.03605, section 3.3). The numbers, the order of random draws
and the layout are those of `get_contrastive_denoising_training_group` of transformers 5.23, which
reads the positions of the queries back from the device and copies image by image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from transformers import DFineConfig
from transformers.image_transforms import center_to_corners_format, corners_to_center_format
from transformers.models.d_fine.modeling_d_fine import inverse_sigmoid

from visionloop.tasks.detection.matcher import DenoisingMeta, Targets, to_device


@dataclass(frozen=True, eq=False)
class NoisyQueries:
    """The D denoising queries of each image: G groups of M positive, then M negative ones.

    M is the number of boxes of the fullest image; the others are padded with the class C.

    embeddings: [B, D, d], of noisy labels.
    box_logits: float32 [B, D, 4], logits of noisy boxes in cxcywh.
    mask: float32 [D + Q, D + Q], 0, or -inf where a query must not attend to another: the Q normal
        queries see no denoising query, and groups do not see each other.
    meta: the layout.
    """

    embeddings: torch.Tensor
    box_logits: torch.Tensor
    mask: torch.Tensor
    meta: DenoisingMeta


def noisy_queries(
    targets: Targets, config: DFineConfig, class_embed: nn.Embedding
) -> NoisyQueries | None:
    """Make denoising queries from the boxes of a batch, without a host sync.

    Args:
        targets: the boxes.
        config: gives num_labels C, num_queries Q, num_denoising, label_noise_ratio and
            box_noise_scale.
        class_embed: embeds the labels 0..C.

    Returns:
        The queries, None where there is no box or num_denoising is 0.
    """
    most, device = max(targets.sizes), targets.boxes.device
    if not most or config.num_denoising <= 0:
        return None
    num_groups = max(1, config.num_denoising // most)
    num_denoising = 2 * num_groups * most
    # padding reads one more row, behind the last box
    box_rows = [np.full(most, len(targets)) for _ in targets.sizes]
    stops = np.cumsum(targets.sizes)
    group_starts = 2 * most * np.arange(num_groups)[:, None]
    positives = []
    for rows, size, stop in zip(box_rows, targets.sizes, stops, strict=True):
        rows[:size] = np.arange(stop - size, stop)
        positives.append((group_starts + np.arange(size)).flatten())
    flat_rows, *positive_queries = to_device([np.concatenate(box_rows), *positives], device)
    index = flat_rows.view(-1, most)
    labels = nn.functional.pad(targets.labels.int(), (0, 1), value=config.num_labels)[index]
    boxes = nn.functional.pad(targets.boxes, (0, 0, 0, 1))[index]

    labels = labels.tile(1, 2 * num_groups)  # [B, D]
    is_changed = torch.rand_like(labels, dtype=torch.float) < 0.5 * config.label_noise_ratio
    random_labels = torch.randint_like(labels, config.num_labels)
    is_changed = is_changed & (labels != config.num_labels)
    labels = torch.where(is_changed, random_labels, labels)

    boxes = boxes.tile(1, 2 * num_groups, 1)  # [B, D, 4]
    places = torch.arange(num_denoising, device=device)
    is_negative = (places // most % 2)[:, None]
    signs = torch.randint_like(boxes, 2) * 2 - 1
    # an edge moves by up to half a side (times the scale), that of a negative one by half to one
    shares = (torch.rand_like(boxes) + is_negative) * signs
    half_sides = (0.5 * boxes[..., 2:]).tile(1, 1, 2) * config.box_noise_scale
    corners = center_to_corners_format(boxes) + shares * half_sides
    box_logits = inverse_sigmoid(corners_to_center_format(corners.clip_(0, 1)))

    meta: DenoisingMeta = {
        "dn_positive_idx": positive_queries,
        "dn_num_group": num_groups,
        "dn_num_split": [num_denoising, config.num_queries],
    }
    mask = attention_mask(places // (2 * most), config.num_queries)
    return NoisyQueries(class_embed(labels), box_logits, mask, meta)


def attention_mask(groups: torch.Tensor, num_queries: int) -> torch.Tensor:
    """Return the mask of `NoisyQueries`.

    Args:
        groups: int64 [D], the group of each denoising query, 0..G - 1.
        num_queries: Q.
    """
    groups = nn.functional.pad(groups, (0, num_queries), value=-1)  # normal queries
    is_hidden = (groups[:, None] != groups) & (groups >= 0)
    return torch.zeros(is_hidden.shape, device=groups.device).masked_fill_(is_hidden, -torch.inf)
