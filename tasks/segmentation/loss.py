"""The loss of EoMT, that of Mask2Former (arXiv 2112.01527) at every level, written from its description and its authors' code.

The library's own loss is never used: it copies costs to the host once per image and level,
divides by the masks of one process, and fails on bool masks and half precision.
"""

from copy import copy

import torch
from torch.nn.utils.rnn import pad_sequence

from visionloop.datasets.segmentation.mask_values import IGNORED
from visionloop.engine.seeding import hashed
from visionloop.tasks.segmentation.matcher import assign, matching_costs, softplus
from visionloop.tasks.segmentation.points import AllPixels, OwnPoints, SharedPoints, uniform_points

TERMS = ("class", "mask", "dice")


class EomtCriterion:
    """Class, cross-entropy and dice losses of all levels; every level is matched anew.

    Masks may overlap and several may have one class: nothing here knows whether they are classes or
    things.

    points: at how many points masks are compared, at most as many as the answer's grid has pixels;
    0: at every pixel of it, true masks averaged down. share_candidates: the matched masks of a
    image choose their points among the same ones (see `points.SharedPoints`). mask_ignore: pixels
    outside `valid` count nowhere, instead of as pixels that no mask holds. no_object_weight: that
    of a query without a mask in the class loss. weights: of the three terms, in costs and loss
    alike. draw: (rows, number, device) -> points in 0..1 [rows, number, 2], for other points than
    those of the default generator; a row is an image, or a pair (see `points.OwnPoints`).

    The gradient of sampled points has no fixed order of its sums on CUDA, unless torch is asked for
    deterministic algorithms (see `points.sample`). With points=0 nothing is sampled.
    """

    def __init__(
        self, num_classes, *, points=12544, share_candidates=True, mask_ignore=False, no_object_weight=0.1, weights=(2.0, 5.0, 5.0),
        draw=uniform_points,
    ):  # fmt: skip
        self.num_classes, self.points, self.share_candidates = num_classes, points, share_candidates
        self.mask_ignore, self.no_object_weight, self.weights, self.draw = (
            mask_ignore,
            no_object_weight,
            weights,
            draw,
        )

    def __call__(self, mask_logits, class_logits, masks, labels, count=None, valid=None):
        """{"loss", "loss_class", "loss_mask", "loss_dice"}: weighted, summed over levels, fp32; "loss" is the sum of the others.

        mask_logits: [B, S, Q, h, w]; class_logits: [B, S, Q, K + 1], the last one "no object";
        masks: list of [T_b, H, W], bool or 0..1, all of one size, which need not be that of the
        answers; labels: list of int64 [T_b] below K. valid: [B, H, W], False where a pixel is
        ignored; read with mask_ignore alone, None: none is.

        count: {"masks": max(1, pairs of the optimizer step) / ranks, "class_weight": weights of its
        queries / ranks}, both of one level: an image has min(Q, T_b) pairs, a query of a pair
        weighs 1, any other no_object_weight. Then micro-batches add up, and ranks average, to the
        whole batch. None: those of this call.

        The host reads the device once: all matching costs in one copy.
        """
        if class_logits.shape[-1] != self.num_classes + 1:
            raise ValueError(
                f"the criterion is for {self.num_classes} classes and no object, the logits have {class_logits.shape[-1]}"
            )
        with torch.autocast(mask_logits.device.type, enabled=False):
            log_classes, padded = (
                class_logits.float().log_softmax(-1),
                pad_sequence(labels, batch_first=True),
            )
            comparison = self._comparison(mask_logits, masks, valid if self.mask_ignore else None)
            pairs = assign(
                matching_costs(*comparison.for_matching(), log_classes, padded, self.weights),
                [len(maps) for maps in masks],
            )
            masks_count, class_weight = self._counts(mask_logits, pairs, count)
            rows = (pairs.images * mask_logits.shape[1] + pairs.levels) * mask_logits.shape[
                2
            ] + pairs.queries
            maps = mask_logits.flatten(0, 2).index_select(0, rows).float()
            entropy, dice = mask_losses(*comparison.for_loss(maps, pairs))
            sums = (
                self._class_loss(log_classes, padded, pairs) / class_weight,
                entropy.sum() / masks_count,
                dice.sum() / masks_count,
            )
            losses = {
                f"loss_{name}": weight * value
                for name, weight, value in zip(TERMS, self.weights, sums, strict=True)
            }
            return {"loss": torch.stack(list(losses.values())).sum(), **losses}

    def _comparison(self, mask_logits, masks, valid):
        if not self.points:
            return AllPixels(mask_logits, masks, valid)
        return (SharedPoints if self.share_candidates else OwnPoints)(
            mask_logits, masks, valid, self.num_points(mask_logits), self.draw
        )

    def num_points(self, mask_logits):
        """More points than the answer has pixels would say nothing new."""
        return min(self.points, mask_logits.shape[-2] * mask_logits.shape[-1])

    def _counts(self, mask_logits, pairs, count):
        if count is not None:
            return count["masks"], count["class_weight"]
        num_images, num_levels, num_queries = mask_logits.shape[:3]
        num_pairs = sum(pairs.sizes) // num_levels
        return max(1, num_pairs), num_pairs + self.no_object_weight * (
            num_images * num_queries - num_pairs
        )

    def _class_loss(self, log_classes, labels, pairs):
        """Weighted sum over all queries of all levels."""
        target = torch.full(log_classes.shape[:-1], self.num_classes, device=log_classes.device)
        weight = torch.full_like(log_classes[..., 0], self.no_object_weight)
        target[pairs.images, pairs.levels, pairs.queries] = labels[pairs.images, pairs.targets]
        weight[pairs.images, pairs.levels, pairs.queries] = 1.0
        return -(log_classes.gather(-1, target[..., None])[..., 0] * weight).sum()


def mask_losses(x, y, known):
    """Cross-entropy (mean over points) and dice of each row of logits x and truth y [N, P]; known: weights [N, P] or None. Twice [N]."""
    probability, entropy = x.sigmoid(), softplus(x)
    number, area = x.shape[1], probability
    if known is not None:
        number, entropy, area = known.sum(1).clamp(min=1e-6), entropy * known, probability * known
    dice = 1 - (2 * (probability * y).sum(1) + 1) / (area.sum(1) + y.sum(1) + 1)
    return (entropy - x * y).sum(1) / number, dice


# The loss of the last level, image by image, to watch on images that were not trained on.


@torch.no_grad()
def losses_of_images(criterion, mask_logits, class_logits, batch):
    """float32 [B]: each image's loss over its own masks and queries, at points that its sample id alone decides.

    mask_logits: [B, S, Q, h, w], of which the last level is read; batch: with fitted_ids uint8 [B,
    side, side], labels and sample_ids.
    """
    losses, seeded = [], copy(criterion)
    for i, (sample, ids, labels) in enumerate(
        zip(batch["sample_ids"].tolist(), batch["fitted_ids"], batch["labels"], strict=True)
    ):
        generator = torch.Generator().manual_seed(hashed(sample) >> 1)

        def draw(rows, number, device, generator=generator):
            return torch.rand(rows, number, 2, generator=generator).to(device)

        seeded.draw = draw
        masks = ids == labels[:, None, None]
        found = seeded(
            mask_logits[i, None, -1:],
            class_logits[i, None, -1:],
            [masks],
            [labels],
            valid=ids[None] != IGNORED,
        )
        losses.append(found["loss"])
    return torch.stack(losses)
