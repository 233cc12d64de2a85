"""The loss of D-FINE, written from the paper (arXiv:2410.13842) and its authors' code.

The source of what the paper leaves open is src/zoo/dfine/dfine_criterion.py of `Peterande/D-FINE`.
The loss of transformers is never used: it pairs decoder layers with the wrong heads, leaves the
last layer without distribution loss, and matches boxes layer by layer instead of by the union.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING

import torch

from visionloop.engine.batch import Normalizers
from visionloop.tasks.detection.boxes import corners_of, iou_and_giou
from visionloop.tasks.detection.loss_terms import (
    bin_values,
    corner_targets,
    divergence_from_last_layer,
    fgl_losses,
    varifocal_losses,
)
from visionloop.tasks.detection.matcher import (
    DenoisingQueries,
    HungarianMatcher,
    Matching,
    ModelOutputs,
    Targets,
    hungarian_matches,
    to_device,
)

if TYPE_CHECKING:
    from transformers.models.d_fine.modeling_d_fine import DFineModelOutput

# {term: weight}; the defaults of --weight-*
WEIGHTS: Mapping[str, float] = {"vfl": 1.0, "bbox": 5.0, "giou": 2.0, "fgl": 0.15, "ddf": 1.5}
TERMS = tuple(WEIGHTS)
TEMPERATURE = 5.0  # of the distillation


class DFineCriterion:
    """Compute the losses of all heads, for normal and for denoising queries.

    The terms are varifocal (vfl), L1 (bbox), generalized IoU (giou), fine-grained localization
    (fgl) and decoupled distillation focal loss (ddf).

    Args:
        num_classes: C.
        reg_max: number of bins of the corner distributions - 1.
        reg_scale: the weight `decoder.reg_scale` of the model, which may differ from its config.
        up: the weight `decoder.up` of the model, likewise.
        weights: {term: weight} of the five terms.
    """

    def __init__(
        self,
        num_classes: int,
        reg_max: int = 32,
        reg_scale: float = 4.0,
        up: float = 0.5,
        weights: Mapping[str, float] = WEIGHTS,
    ) -> None:
        self.num_classes, self.reg_scale = num_classes, float(reg_scale)
        self.bins = bin_values(reg_max, self.reg_scale, float(up))
        self.weights = dict(weights)
        self.matcher = HungarianMatcher()

    def __call__(
        self,
        outputs: DFineModelOutput,
        targets: Sequence[Mapping[str, torch.Tensor]],
        normalizers: Normalizers | None = None,
        *,
        denoising_targets: Sequence[Mapping[str, torch.Tensor]] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Compute the weighted loss terms in fp32. The only host sync is the matcher's.

        VFL and the denoising terms are sums divided by `normalizers["boxes"]`. The size of the
        union of matches is known only after the forward, so its terms, and both distillations, are
        means over the micro-batch of all ranks, weighted by its share of the boxes of the step.
        Ranks are therefore exact where they have equally many denoising groups; gradient
        accumulation is exact for VFL, for denoising with equal groups, and a weighted mean for the
        rest.

        Args:
            outputs: of a training forward with or without denoising queries, or of an evaluation
                forward (the last layer and the proposals).
            targets: {"class_labels": int64 [G], "boxes": float [G, 4] cxcywh in 0..1} per image.
            normalizers: {"boxes": max(1, boxes of the step over all ranks) / ranks}. Its
                `sum_over_ranks` is called once, by all ranks, with or without boxes. None: divide
                by this batch alone.
            denoising_targets: the boxes that denoising queries were made from, if not `targets`.

        Returns:
            {"loss": the sum of the others, "loss_<term>", "loss_dn_<term>"}.
        """
        logits = outputs.intermediate_logits
        if logits.shape[-1] != self.num_classes:
            raise ValueError(
                f"the criterion is for {self.num_classes} classes, "
                f"the logits have {logits.shape[-1]}"
            )
        with torch.autocast(logits.device.type, enabled=False):
            self.bins = self.bins.to(logits.device)
            model_outputs = ModelOutputs.from_outputs(outputs)
            ground_truth = Targets.concatenate(targets)
            denoising = DenoisingQueries.from_meta_values(
                outputs.denoising_meta_values,
                targets if denoising_targets is None else denoising_targets,
            )
            matching = self.matcher(model_outputs, ground_truth, denoising)
            divisors = LossNormalizers.compute(
                model_outputs, ground_truth, denoising, matching.num_union, normalizers
            )
            terms = self._terms(model_outputs, matching, divisors)
            losses = {
                f"loss_{part}{name}": self.weights[name] * terms[part + name]
                for part in ("", "dn_")
                for name in TERMS
            }
            return {"loss": torch.stack(list(losses.values())).sum(), **losses}

    def _terms(
        self, outputs: ModelOutputs, matching: Matching, normalizers: LossNormalizers
    ) -> dict[str, torch.Tensor]:
        """Return {"vfl": .., "dn_vfl": .., ..}, without weights."""
        images, queries, boxes = matching.shared
        target = matching.boxes[boxes]  # [P, 4], union then denoising
        predicted = outputs.boxes[images, :, queries]  # [P, K, 4]
        l1 = (predicted - target[:, None]).abs().sum(-1)
        iou, giou = iou_and_giou(
            corners_of(predicted.unbind(-1)), corners_of(target[:, None].unbind(-1))
        )
        iou = iou.detach()
        left, right_weight = corner_targets(
            outputs.references[images, queries], target, self.bins, self.reg_scale
        )
        corners = outputs.corners[images, :, queries]  # [P, L, 4, bins]
        fgl = fgl_losses(corners, left, right_weight) * iou[:, outputs.layer_heads]
        vfl, dn_vfl = _varifocal(outputs, matching, iou)
        ddf, dn_ddf = _distillation(outputs, matching, iou, normalizers)
        terms = {
            "vfl": vfl / normalizers.boxes,
            "dn_vfl": dn_vfl / normalizers.denoising,
            "ddf": ddf,
            "dn_ddf": dn_ddf,
        }
        cut, num_heads = matching.num_union, outputs.logits.shape[1]
        for name, values in (("bbox", l1), ("giou", 1 - giou), ("fgl", fgl)):
            terms[name] = values[:cut].sum() / normalizers.union
            # the proposals of the encoder have no denoising queries
            terms[f"dn_{name}"] = values[cut:, :num_heads].sum() / normalizers.denoising
        return terms


def _varifocal(
    outputs: ModelOutputs, matching: Matching, iou: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum the varifocal loss over normal and over denoising queries.

    Each head uses its own matches; denoising queries have fixed ones.

    Args:
        outputs: of the model.
        matching: of the batch.
        iou: [P, K], of the shared matches.
    """
    _, num_heads, num_queries, _ = outputs.logits.shape
    images, heads, queries, boxes = matching.per_head
    with torch.no_grad():
        predicted = outputs.boxes[images, heads, queries].unbind(-1)
        target = matching.boxes[boxes].unbind(-1)
        quality, _ = iou_and_giou(corners_of(predicted), corners_of(target))
    labels, cut = matching.labels[boxes], matching.num_decoder
    rows = ((images * num_heads + heads) * num_queries + queries)[:cut]
    dn_images, dn_queries, dn_boxes = (
        column[matching.num_union :, None] for column in matching.shared
    )
    all_heads = torch.arange(num_heads, device=iou.device)
    dn_rows = ((dn_images * num_heads + all_heads) * num_queries + dn_queries).flatten()
    dn_labels = matching.labels[dn_boxes].expand(-1, num_heads).flatten()
    dn_quality = iou[matching.num_union :, :num_heads].flatten()
    losses = varifocal_losses(
        outputs.logits,
        torch.cat([rows, dn_rows]),
        torch.cat([labels[:cut], dn_labels]),
        torch.cat([quality[:cut], dn_quality]),
    )  # [B, H, T]
    num_denoising = outputs.num_denoising
    total = losses[..., num_denoising:].sum()
    if outputs.proposals is not None:
        rows = images[cut:] * outputs.num_queries + queries[cut:] - num_denoising
        proposal_losses = varifocal_losses(outputs.proposals, rows, labels[cut:], quality[cut:])
        total = total + proposal_losses.sum()
    return total, losses[..., :num_denoising].sum()


def _distillation(
    outputs: ModelOutputs, matching: Matching, iou: torch.Tensor, normalizers: LossNormalizers
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute DDF over normal and over denoising queries: earlier layers against the last.

    A matched query is weighted by its IoU, any other by the confidence of the teacher.
    """
    if outputs.corners.shape[1] == 1:
        return outputs.corners.new_zeros(()), outputs.corners.new_zeros(())
    divergence = divergence_from_last_layer(outputs.corners, TEMPERATURE)  # [B, L - 1, T]
    with torch.no_grad():
        students = slice(outputs.layer_heads.start, outputs.layer_heads.stop - 1)
        confidence = outputs.logits[:, -1].amax(-1).sigmoid_()
        weights = confidence[:, None].repeat(1, divergence.shape[1], 1)
        num_denoising, cut = outputs.num_denoising, matching.num_union
        weights[..., num_denoising:] *= normalizers.unmatched
        weights[..., :num_denoising] *= normalizers.dn_unmatched
        images, queries, _ = matching.shared
        matched = iou[:, students].clone()
        matched[:cut] *= normalizers.matched
        matched[cut:] *= normalizers.dn_matched
        weights[images, :, queries] = matched
    losses = divergence * weights * TEMPERATURE**2
    return losses[..., num_denoising:].sum(), losses[..., :num_denoising].sum()


@dataclass(frozen=True)
class LossNormalizers:
    """Divisors and factors of the terms of one micro-batch, on the host.

    With W ranks that average their gradients, the terms of the union U are share * sum / |U|: the
    sum is that of this rank, |U| that of the micro-batch over all ranks, and share = W * (boxes of
    the micro-batch) / (boxes of the step) = boxes of the micro-batch / normalizers["boxes"].

    boxes: divisor, boxes of the step.
    denoising: divisor, the same times the groups of denoising queries.
    union: divisor, |U| / share.
    matched, unmatched, dn_matched, dn_unmatched: factors on the divergence of each query.
    """

    boxes: float
    denoising: float
    union: float
    matched: float
    unmatched: float
    dn_matched: float
    dn_unmatched: float

    @classmethod
    def compute(
        cls,
        outputs: ModelOutputs,
        targets: Targets,
        denoising: DenoisingQueries,
        num_union: int,
        normalizers: Normalizers | None,
    ) -> LossNormalizers:
        """Sum the counts of this micro-batch over all ranks, or take them alone without any.

        All ranks call this equally often, with or without boxes.
        """
        num_images, num_denoising = len(targets.sizes), outputs.num_denoising
        counts: list[float] = [
            len(targets),
            num_union,
            num_images * outputs.num_queries - num_union,
            len(denoising),
            num_images * num_denoising - len(denoising),
        ]
        if normalizers is not None:
            counts = normalizers.sum_over_ranks(counts)
        num_boxes, matched, unmatched, dn_matched, dn_unmatched = counts
        boxes = max(1, num_boxes) if normalizers is None else normalizers["boxes"]
        share = max(1, num_boxes) / boxes
        # DDF = (M sqrt(m) + U sqrt(u)) / (sqrt(m) + sqrt(u)): M and U are means over the entries of
        # the m matched and u unmatched queries, four sides to a query
        root, other = sqrt(matched), sqrt(unmatched)
        factors = [
            share * weight / (root + other) / (4 * number) if number else 0.0
            for weight, number in (
                (root, matched),
                (other, unmatched),
                (root, dn_matched),
                (other, dn_unmatched),
            )
        ]
        return cls(boxes, boxes * denoising.groups, max(1, matched) / share, *factors)


@torch.no_grad()
def last_layer_losses(
    logits: torch.Tensor,
    boxes: torch.Tensor,
    targets: Sequence[Mapping[str, torch.Tensor]],
    weights: Mapping[str, float] = WEIGHTS,
) -> torch.Tensor:
    """Compute the validation loss of each image: VFL, L1 and GIoU of the last decoder layer.

    The layer uses its own matches. The sum over images divided by the number of their boxes is
    comparable between datasets. One host sync, for the matching costs.

    Args:
        logits: [B, Q, C].
        boxes: [B, Q, 4], cxcywh in 0..1.
        targets: {"class_labels": int64 [G], "boxes": float [G, 4] cxcywh in 0..1} per image.
        weights: {"vfl", "bbox", "giou"}; other terms are ignored.

    Returns:
        float32 [B], weighted sums over the boxes of each image.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits, boxes, ground_truth = logits.float(), boxes.float(), Targets.concatenate(targets)
        (images,) = to_device([ground_truth.images()], logits.device)
        costs = HungarianMatcher().matching_costs(
            [(logits[:, None], boxes[:, None])], ground_truth.labels, ground_truth.boxes, images
        )
        matches = hungarian_matches(costs.cpu().numpy(), ground_truth.sizes)
        images, queries, matched = to_device(
            [matches.images, matches.queries, matches.boxes], logits.device
        )
        predicted, target = boxes[images, queries], ground_truth.boxes[matched]
        iou, giou = iou_and_giou(corners_of(predicted.unbind(-1)), corners_of(target.unbind(-1)))
        rows = images * logits.shape[1] + queries
        class_losses = varifocal_losses(logits, rows, ground_truth.labels[matched], iou).sum(-1)
        l1 = (predicted - target).abs().sum(-1)
        box_losses = weights["bbox"] * l1 + weights["giou"] * (1 - giou)
        return (weights["vfl"] * class_losses).index_add_(0, images, box_losses)
