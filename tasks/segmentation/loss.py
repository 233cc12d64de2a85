"""The loss of EoMT: that of Mask2Former (arXiv:2112.01527) at every level.

Written from its description and from `training/mask_classification_loss.py` of `tue-mps/eomt`. The
loss of transformers is not used: 5.23.0 copies costs to the host once per image and level, divides
by the masks of one process, and fails on bool masks and half precision.
"""

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from typing import NamedTuple

import torch
from torch.nn.utils.rnn import pad_sequence

from visionloop.engine.seeding import hashed
from visionloop.tasks.segmentation.matcher import HungarianMatcher, Matches
from visionloop.tasks.segmentation.points import (
    AllPixels,
    DrawPoints,
    MaskSampler,
    OwnPoints,
    SharedPoints,
    uniform_points,
)

TERMS = ("class", "mask", "dice")


class ImageTargets(NamedTuple):
    """The targets of one image.

    masks: bool [T, H, W]; labels: int64 [T]; valid: bool [H, W], False where a pixel is ignored.
    """

    masks: torch.Tensor
    labels: torch.Tensor
    valid: torch.Tensor


class EomtCriterion:
    """Compute class, mask cross-entropy and dice losses of all levels, each matched by itself.

    Masks may overlap, and several may have one class: semantic, instance and panoptic targets are
    computed in the same way.

    The gradient of sampled points has no fixed order of its sums on CUDA, unless deterministic
    algorithms are enabled in torch (see `points.point_sample`). With points=0 nothing is sampled.

    Args:
        num_classes: number of classes K.
        points: number of points at which masks are compared, at most the pixels of the mask logits;
            0: every pixel of the logits, ground-truth masks averaged down.
        share_candidates: the matched masks of an image choose their points among the same
            candidates (see `points.SharedPoints`).
        mask_ignore: ignored pixels count nowhere, instead of as pixels outside of every mask.
        no_object_weight: weight of a query without a mask in the class loss.
        weights: of the three terms, in the matching costs and in the loss.
        draw: (rows, number, device) -> points in 0..1, [rows, number, 2], (x, y); a row is an
            image, or a pair (see `points.OwnPoints`). The default draws from torch's generator.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        points: int = 12544,
        share_candidates: bool = True,
        mask_ignore: bool = False,
        no_object_weight: float = 0.1,
        weights: tuple[float, float, float] = (2.0, 5.0, 5.0),
        draw: DrawPoints = uniform_points,
    ) -> None:
        self.num_classes, self.points, self.draw = num_classes, points, draw
        self.share_candidates, self.mask_ignore = share_candidates, mask_ignore
        self.no_object_weight, self.weights = no_object_weight, weights
        self.matcher = HungarianMatcher(weights)

    def __call__(
        self,
        mask_logits: torch.Tensor,
        class_logits: torch.Tensor,
        masks: Sequence[torch.Tensor],
        labels: Sequence[torch.Tensor],
        normalizers: Mapping[str, float] | None = None,
        valid: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Compute the loss of one micro-batch in fp32.

        The host reads the device once: all matching costs in one copy.

        Args:
            mask_logits: [B, S, Q, h, w].
            class_logits: [B, S, Q, K + 1], the last one "no object".
            masks: ground-truth masks of each image, [T_b, H, W] each, bool or 0..1; all images of
                one size, which need not be that of the logits.
            labels: their classes, int64 [T_b] each.
            normalizers: {"masks": max(1, pairs of the step) / ranks, "class_weight": sum of the
                weights of its queries / ranks}, both of one level: an image has min(Q, T_b) pairs,
                a query of a pair weighs 1, any other no_object_weight. Micro-batches then add up,
                and ranks average, to the whole batch. None: those of this call.
            valid: bool [B, H, W], False where a pixel is ignored; read with mask_ignore alone.
                None: nothing is ignored.

        Returns:
            {"loss", "loss_class", "loss_mask", "loss_dice"}: terms weighted and summed over levels;
            "loss" is the sum of the others.
        """
        if class_logits.shape[-1] != self.num_classes + 1:
            raise ValueError(
                f"the criterion is for {self.num_classes} classes and no object, the logits have "
                f"{class_logits.shape[-1]}"
            )
        with torch.autocast(mask_logits.device.type, enabled=False):
            log_probabilities = class_logits.float().log_softmax(-1)
            padded_labels = pad_sequence(list(labels), batch_first=True)  # [B, T]
            sampler = self._sampler(mask_logits, masks, valid if self.mask_ignore else None)
            sizes = [len(image_masks) for image_masks in masks]
            matches = self.matcher(*sampler.for_matching(), log_probabilities, padded_labels, sizes)
            num_masks, class_weight = self._normalizers(mask_logits, matches, normalizers)
            num_levels, num_queries = mask_logits.shape[1:3]
            rows = (matches.images * num_levels + matches.levels) * num_queries + matches.queries
            matched_logits = mask_logits.flatten(0, 2).index_select(0, rows).float()  # [N, h, w]
            entropy, dice = mask_losses(*sampler.for_loss(matched_logits, matches))
            sums = (
                self._class_loss(log_probabilities, padded_labels, matches) / class_weight,
                entropy.sum() / num_masks,
                dice.sum() / num_masks,
            )
            losses = {
                f"loss_{name}": weight * value
                for name, weight, value in zip(TERMS, self.weights, sums, strict=True)
            }
            return {"loss": torch.stack(list(losses.values())).sum(), **losses}

    def num_points(self, mask_logits: torch.Tensor) -> int:
        """Return the number of points: more than the logits have pixels would add nothing."""
        return min(self.points, mask_logits.shape[-2] * mask_logits.shape[-1])

    def _sampler(
        self,
        mask_logits: torch.Tensor,
        masks: Sequence[torch.Tensor],
        valid: torch.Tensor | None,
    ) -> MaskSampler:
        if not self.points:
            return AllPixels(mask_logits, masks, valid)
        sampler_class = SharedPoints if self.share_candidates else OwnPoints
        return sampler_class(mask_logits, masks, valid, self.num_points(mask_logits), self.draw)

    def _normalizers(
        self,
        mask_logits: torch.Tensor,
        matches: Matches,
        normalizers: Mapping[str, float] | None,
    ) -> tuple[float, float]:
        """Return (masks, class weight) that sums are divided by."""
        if normalizers is not None:
            return normalizers["masks"], normalizers["class_weight"]
        num_images, num_levels, num_queries = mask_logits.shape[:3]
        num_pairs = sum(matches.sizes) // num_levels
        num_unmatched = num_images * num_queries - num_pairs
        return max(1, num_pairs), num_pairs + self.no_object_weight * num_unmatched

    def _class_loss(
        self, log_probabilities: torch.Tensor, labels: torch.Tensor, matches: Matches
    ) -> torch.Tensor:
        """Sum the weighted cross-entropy over all queries of all levels."""
        shape, device = log_probabilities.shape[:-1], log_probabilities.device
        target = torch.full(shape, self.num_classes, device=device)  # [B, S, Q]
        matched = matches.images, matches.levels, matches.queries
        target[matched] = labels[matches.images, matches.targets]
        # `weight[matched] = 1.0` would copy the number to the device with a host sync
        weight = torch.where(target == self.num_classes, self.no_object_weight, 1.0)
        return -(log_probabilities.gather(-1, target[..., None])[..., 0] * weight).sum()


def mask_losses(
    logits: torch.Tensor, targets: torch.Tensor, valid: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute cross-entropy (mean over points) and dice loss of N masks at P points.

    Args:
        logits: [N, P].
        targets: share of each point inside the ground-truth mask, 0..1, [N, P].
        valid: share of each point that is not ignored, [N, P]; None: nothing is ignored.

    Returns:
        Two tensors [N].
    """
    probability, entropy = logits.sigmoid(), softplus(logits)
    number: int | torch.Tensor = logits.shape[1]
    area = probability
    if valid is not None:
        number = valid.sum(1).clamp(min=1e-6)
        entropy, area = entropy * valid, probability * valid
    dice = 1 - (2 * (probability * targets).sum(1) + 1) / (area.sum(1) + targets.sum(1) + 1)
    return (entropy - logits * targets).sum(1) / number, dice


def softplus(logits: torch.Tensor) -> torch.Tensor:
    """Compute log(1 + exp(x)), exact to 1e-7; its gradient at 0 is 1/2.

    torch's takes four times as long on a CPU (log1p is not vectorized).
    """
    size = logits.abs()
    return (logits + size) / 2 - size.sigmoid().log()


@torch.no_grad()
def per_image_losses(
    criterion: EomtCriterion,
    mask_logits: torch.Tensor,
    class_logits: torch.Tensor,
    targets: Iterable[ImageTargets],
    sample_ids: Sequence[int],
) -> torch.Tensor:
    """Compute the validation loss of each image: the last level, over its own masks and queries.

    The points follow from the sample id alone, so that the loss does not depend on the batch.

    Args:
        criterion: the loss of the training.
        mask_logits: [B, S, Q, h, w], of which the last level is read.
        class_logits: [B, S, Q, K + 1].
        targets: of each image; from a generator, the masks of one image are in memory at a time.
        sample_ids: of each image.

    Returns:
        float32 [B].
    """
    losses, seeded = [], copy(criterion)
    for i, (sample_id, (masks, labels, valid)) in enumerate(zip(sample_ids, targets, strict=True)):
        generator = torch.Generator().manual_seed(hashed(sample_id) >> 1)

        def draw(
            rows: int,
            number: int,
            device: torch.device,
            generator: torch.Generator = generator,
        ) -> torch.Tensor:
            return torch.rand(rows, number, 2, generator=generator).to(device)

        seeded.draw = draw
        image_losses = seeded(
            mask_logits[i, None, -1:],
            class_logits[i, None, -1:],
            [masks],
            [labels],
            valid=valid[None],
        )
        losses.append(image_losses["loss"])
    return torch.stack(losses)
