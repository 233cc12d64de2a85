"""Choose the most probable (query, class) pairs of an image and encode their masks."""

from collections.abc import Sequence

import torch
from pycocotools import mask as coco_mask

from visionloop.tasks.operating_point import ScoreThresholds
from visionloop.tasks.segmentation.segments.upsample import logit_strips

MASKS = 2**23  # pixels of masks at once, or one mask: 8 MiB are faster than 64


def top_masks(
    mask_logits: torch.Tensor,
    class_logits: torch.Tensor,
    size_hw: Sequence[int],
    side: int,
    *,
    count: int = 100,
    score: float = 0.0,
) -> tuple[list[bytes], torch.Tensor, torch.Tensor]:
    """Predict the instances of an image: masks that may overlap, without suppression.

    The pairs of a query and a class with the highest class probabilities are chosen, so that a
    query may occur with several classes; its mask is resized and encoded once. A score is the class
    probability times the quality of the mask: the mean mask probability of its pixels. Source:
    `eval_step` in training/mask_classification_instance.py of `tue-mps/eomt`, which keeps a mask
    without a pixel, at a score of 0.

    Args:
        mask_logits: [Q, h, w] of the padded square.
        class_logits: [Q, K + 1], the last one "no object".
        size_hw: height and width of the image.
        side: of the square in pixels.
        count: pairs that are chosen.
        score: pairs of a lower score are left out. So are masks without a pixel.

    Returns:
        (COCO's compressed run lengths of n masks; classes int64 [n] and scores float32 [n] on the
        host), the highest score first.
    """
    probabilities = class_logits.float().softmax(-1)[:, :-1]
    num_classes = probabilities.shape[1]
    top = probabilities.flatten().topk(min(count, probabilities.numel()))
    values, pairs = top.values.cpu(), top.indices.cpu()
    # the quality is at most 1: pairs of a lower probability cannot reach the score
    values, pairs = values[values >= score], pairs[values >= score]
    queries, places = (pairs // num_classes).unique(return_inverse=True)
    rles, qualities = encode_masks(mask_logits[queries.to(mask_logits.device)], size_hw, side)
    scores, order = (values * qualities[places]).sort(descending=True, stable=True)
    valid = (qualities[places] > 0)[order] & (scores >= score)
    chosen, scores = order[valid], scores[valid]
    return [rles[i] for i in places[chosen].tolist()], pairs[chosen] % num_classes, scores


def reaching(
    thresholds: ScoreThresholds, rles: Sequence[bytes], labels: torch.Tensor, scores: torch.Tensor
) -> tuple[list[bytes], torch.Tensor, torch.Tensor]:
    """Return the instances of `top_masks` that have the score of their class."""
    chosen = thresholds.reached(scores, labels)
    return [rles[i] for i in chosen.nonzero().flatten().tolist()], labels[chosen], scores[chosen]


def encode_masks(
    mask_logits: torch.Tensor, size_hw: Sequence[int], side: int
) -> tuple[list[bytes], torch.Tensor]:
    """Encode the pixels with a logit above 0 of every query, a few masks at a time.

    Run lengths go down the columns. The transposed logits are resized, so that every mask is in
    this order in memory already: transposed first, masks take 3.5 times as long to encode.

    Args:
        mask_logits: [n, h, w] of the padded square.
        size_hw: height and width of the image.
        side: of the square in pixels.

    Returns:
        (compressed run lengths of each mask; float32 [n] on the host: the mean probability of its
        pixels, 0 for a mask without pixels).
    """
    height, width = int(size_hw[0]), int(size_hw[1])
    rles: list[bytes] = []
    qualities = [torch.zeros(0)]
    at_once = max(1, MASKS // (height * width))
    for first in range(0, len(mask_logits), at_once):
        chunk = mask_logits[first : first + at_once].mT
        shape = len(chunk), width, height
        masks = torch.empty(shape, dtype=torch.bool, device=chunk.device)
        sums = torch.zeros(len(chunk), device=chunk.device)
        for columns, logits in logit_strips(chunk, (width, height), side):
            torch.gt(logits, 0, out=masks[:, columns])
            # -inf has the probability 0; a sixth of the time of a product with the mask on a CPU
            inside = torch.threshold_(logits, 0, -torch.inf).sigmoid_()
            sums += inside.flatten(1).sum(1)
        encoded = coco_mask.encode(masks.cpu().numpy().view("uint8").transpose(2, 1, 0))
        areas = torch.from_numpy(coco_mask.area(encoded).astype("int64"))
        rles += [rle["counts"] for rle in encoded]
        qualities.append(sums.cpu() / areas.clamp(min=1))
    return rles, torch.cat(qualities)
