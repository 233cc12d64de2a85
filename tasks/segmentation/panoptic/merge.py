"""Merge the masks of the queries into one panoptic map per image."""

from collections.abc import Sequence

import torch

from visionloop.tasks.segmentation.segments.upsample import logit_strips


def panoptic_maps(
    mask_logits: torch.Tensor,
    class_logits: torch.Tensor,
    size_hw: Sequence[int],
    side: int,
    is_thing: Sequence[bool],
    *,
    score: float,
    overlap: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Give every pixel of an image to one segment, or to none.

    A pixel belongs to the kept query with the highest class probability times mask probability, if
    its mask probability for that query is at least 0.5. A query that owns too little of its own
    mask is dropped, and its pixels are void: no other query inherits them. Queries of one stuff
    class are one segment. The host reads the device four times, whatever the number of queries and
    the size of the image. Source: `to_per_pixel_preds_panoptic` in training/lightning_module.py of
    `tue-mps/eomt`.

    Args:
        mask_logits: [Q, h, w] of the padded square.
        class_logits: [Q, K + 1], the last one "no object".
        size_hw: height and width of the image.
        side: of the square in pixels.
        is_thing: whether each class is of things, [K].
        score: a query is kept if its class probability is above.
        overlap: a kept query is dropped if the pixels it owns are fewer than this share of its
            mask. Owned pixels outside of the mask count too.

    Returns:
        (int32 [H, W] on the device of the logits: 0 void, i + 1 segment i; classes int64 [n] and
        class probabilities float32 [n] on the host, in the order of queries). A segment of several
        stuff queries has the probability of the first.

    Raises:
        ValueError: is_thing is not as long as there are classes.
    """
    num_classes = class_logits.shape[-1] - 1
    if len(is_thing) != num_classes:
        raise ValueError(f"is_thing has {len(is_thing)} entries, expected {num_classes} classes")
    probabilities, labels = class_logits.float().softmax(-1).max(-1)
    queries = ((labels < num_classes) & (probabilities > score)).nonzero()[:, 0]
    if not len(queries):
        empty = torch.zeros(*size_hw, dtype=torch.int32, device=mask_logits.device)
        return empty, torch.zeros(0, dtype=torch.int64), torch.zeros(0)
    labels, probabilities = labels[queries], probabilities[queries]
    owners, counts = assign_pixels(mask_logits[queries], probabilities, size_hw, side)
    # float64 holds all of them exactly: one copy
    on_host = torch.cat([counts.double(), labels[None].double(), probabilities[None].double()])
    areas, owned, inside, labels, probabilities = on_host.cpu()
    kept = (areas > 0) & (inside > 0) & (owned / areas >= overlap)
    numbers, firsts = number_segments(kept.tolist(), labels.long().tolist(), is_thing)
    segment_of_owner = [segment for number in numbers for segment in (0, number)]
    table = torch.tensor(segment_of_owner, dtype=torch.int32).to(owners.device)
    segment_map = table.index_select(0, owners.flatten()).view_as(owners)
    return segment_map, labels[firsts].long(), probabilities[firsts].float()


def assign_pixels(
    mask_logits: torch.Tensor,
    probabilities: torch.Tensor,
    size_hw: Sequence[int],
    side: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the query that owns each pixel.

    Args:
        mask_logits: [n, h, w] of the padded square, n >= 1.
        probabilities: of the classes, float32 [n].
        size_hw: height and width of the image.
        side: of the square in pixels.

    Returns:
        (int32 [H, W]: twice the owner, and 1 more where its mask probability is at least 0.5;
        int64 [3, n]: the pixels of each mask, the pixels it owns, and those it owns inside of its
        mask).
    """
    num_masks, device = len(mask_logits), mask_logits.device
    owners = torch.empty(*size_hw, dtype=torch.int32, device=device)
    areas = torch.zeros(num_masks, dtype=torch.int64, device=device)
    for rows, logits in logit_strips(mask_logits, size_hw, side):
        masks = logits.sigmoid_()
        # an int64 sum takes two to six times as long on a CPU
        areas += (masks >= 0.5).flatten(1).sum(1, dtype=torch.int32)
        # a third of the time of argmax(0) on a CPU
        owner = (masks * probabilities[:, None, None]).max(0).indices
        is_inside = masks.gather(0, owner[None])[0] >= 0.5
        owners[rows] = 2 * owner + is_inside
    # not in every strip: on CUDA a count has two host syncs, for the smallest and the largest value
    owned = owners.flatten().bincount(minlength=2 * num_masks).view(-1, 2)  # outside, inside
    return owners, torch.stack([areas, owned.sum(1), owned[:, 1]])


def number_segments(
    kept: Sequence[bool], labels: Sequence[int], is_thing: Sequence[bool]
) -> tuple[list[int], list[int]]:
    """Number the segments of an image from 1, in the order of queries.

    Args:
        kept: whether each query has a segment, [n].
        labels: their classes, [n].
        is_thing: whether each class is of things, [K].

    Returns:
        (the segment of each query, 0 for none; the first query of each segment).
    """
    numbers, firsts = [], []
    stuff: dict[int, int] = {}  # class -> segment
    for query, (is_kept, label) in enumerate(zip(kept, labels, strict=True)):
        if not is_kept:
            numbers.append(0)
            continue
        if is_thing[label] or label not in stuff:
            firsts.append(query)
            stuff[label] = len(firsts)
            numbers.append(len(firsts))
        else:
            numbers.append(stuff[label])
    return numbers, firsts
