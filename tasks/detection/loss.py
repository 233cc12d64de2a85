"""The loss of D-FINE, written from its description (arXiv 2410.13842) and the behaviour of its authors' code (`Peterande/D-FINE`).

The library's own loss is never used: it pairs layers with the wrong heads, leaves the last layer
without distributions, and matches boxes layer by layer instead of by the union.
"""

from dataclasses import dataclass
from math import sqrt

import torch

from visionloop.tasks.detection.boxes import corners_of, iou_and_giou
from visionloop.tasks.detection.loss_terms import (
    bin_values,
    divergence_from_last,
    edge_losses,
    edge_targets,
    varifocal_losses,
)
from visionloop.tasks.detection.matcher import (
    Answers,
    Denoised,
    Targets,
    assign,
    match_predictions,
    matching_costs,
    to_device,
)

# The loss of the last layer, image by image, to watch on images that were not trained on.


@torch.no_grad()
def last_layer_losses(logits, boxes, targets, *, vfl=1.0, bbox=5.0, giou=2.0):
    """Weighted sum of varifocal, L1 and GIoU loss of each image by its own matching, not divided: float32 [B].

    logits: [B, Q, C]; boxes: [B, Q, 4] cxcywh in 0..1; targets: [{"class_labels": [G], "boxes": [G,
    4]}]. The sum over images divided by the number of their boxes is comparable between data
    sets. One host read, of the matching costs.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits, boxes, truth = logits.float(), boxes.float(), Targets.join(targets)
        (images,) = to_device([truth.images()], logits.device)
        costs = matching_costs(
            [(logits[:, None], boxes[:, None])], truth.labels, truth.boxes, images
        )
        pairs = assign(costs.cpu().numpy(), truth.sizes)
        images, queries, matched = to_device(
            [pairs.images, pairs.queries, pairs.boxes], logits.device
        )
        found, true = boxes[images, queries], truth.boxes[matched]
        iou, generalised = iou_and_giou(corners_of(found.unbind(-1)), corners_of(true.unbind(-1)))
        of_classes = varifocal_losses(
            logits, images * logits.shape[1] + queries, truth.labels[matched], iou
        ).sum(-1)
        of_boxes = bbox * (found - true).abs().sum(-1) + giou * (1 - generalised)
        return (vfl * of_classes).index_add_(0, images, of_boxes)


# What the sums of D-FINE's loss are divided by, over micro-batches and ranks.


@dataclass(frozen=True)
class LossNormalizers:
    """Numbers on the host. Three divide a sum, the last four multiply each query's divergence.

    With W ranks that average their gradients, the terms of the union are share * sum / |U|: the sum
    is this rank's, |U| that of the micro-batch over all ranks, and share = W * (boxes of the
    micro-batch) / (boxes of the step) = boxes of the micro-batch / count.
    """

    boxes: float  # of the step
    denoised: float  # the same, times the groups of denoising queries
    union: float  # |U| / share
    matched: float
    unmatched: float
    dn_matched: float
    dn_unmatched: float

    @classmethod
    def measure(cls, answers, truth, denoised, num_union, count, sum_over_ranks):
        """From this batch alone where there is no count; otherwise all ranks take part, once, boxes or no boxes."""
        num_images, num_denoising = len(truth.sizes), answers.num_denoising
        numbers = [len(truth), num_union, num_images * answers.num_queries - num_union]
        numbers += [len(denoised), num_images * num_denoising - len(denoised)]
        if count is not None and sum_over_ranks is not None:
            numbers = sum_over_ranks(numbers)
        num_boxes, matched, unmatched, dn_matched, dn_unmatched = numbers
        divisor = max(1, num_boxes) if count is None else count["boxes"]
        share = max(1, num_boxes) / divisor
        # DDF = (P sqrt(m) + N sqrt(r)) / (sqrt(m) + sqrt(r)), P and N means over entries: four
        # sides to a query
        root, other = sqrt(matched), sqrt(unmatched)
        pulls = (root, other, root, other)
        sums = (matched, unmatched, dn_matched, dn_unmatched)
        each = [
            share * pull / (root + other) / (4 * number) if number else 0.0
            for pull, number in zip(pulls, sums, strict=True)
        ]
        return cls(divisor, divisor * denoised.groups, max(1, matched) / share, *each)


TERMS = ("vfl", "bbox", "giou", "fgl", "ddf")
TEMPERATURE = 5.0  # of the distillation


class DFineCriterion:
    """Varifocal, L1, GIoU, edge and distillation losses of all heads, and the same for denoising queries.

    num_classes, reg_max (bins - 1), reg_scale, up: the network's; the last two are its weights
    `decoder.reg_scale` and `decoder.up`, which may differ from its config. vfl, bbox, giou, fgl,
    ddf: weights of the terms.
    """

    def __init__(
        self,
        num_classes,
        reg_max=32,
        reg_scale=4.0,
        up=0.5,
        *,
        vfl=1.0,
        bbox=5.0,
        giou=2.0,
        fgl=0.15,
        ddf=1.5,
    ):
        self.num_classes, self.reg_scale = num_classes, float(reg_scale)
        self.bins = bin_values(reg_max, self.reg_scale, float(up))
        self.weights = dict(zip(TERMS, (vfl, bbox, giou, fgl, ddf), strict=True))

    def __call__(
        self, outputs, targets, count=None, *, denoising_targets=None, sum_over_ranks=None
    ):
        """{"loss", "loss_<term>", "loss_dn_<term>"}, terms vfl, bbox, giou, fgl, ddf: weighted, fp32; "loss" is the sum of the others.

        outputs: the library's DFineModelOutput of a training forward, with or without denoising, or
        of an evaluation forward (then the last layer and the proposals alone). targets:
        [{"class_labels": int64 [G], "boxes": [G, 4] cxcywh in 0..1}]. denoising_targets: what the
        denoising queries were made of, if fewer.

        count: {"boxes": max(1, boxes of the optimizer step) / ranks}; None divides by this batch
        alone and asks nobody. sum_over_ranks: the element-wise sum of a list of numbers over all
        ranks, on the CPU; called once wherever there is a count, boxes or no boxes. None: this
        process is alone. VFL and the denoising terms divide by `count`. How many queries the union
        holds is known only now, so its terms, and both distillations, are means over the
        micro-batch of all ranks, weighted with its share of the step's boxes. Hence ranks are
        exact, where they have equally many denoising groups; accumulation is exact for VFL, for
        denoising at equal groups, and a weighted mean for the rest.

        The host reads the device once: all matching costs in one copy.
        """
        device, num_classes = (
            outputs.intermediate_logits.device,
            outputs.intermediate_logits.shape[-1],
        )
        if num_classes != self.num_classes:
            raise ValueError(
                f"the criterion is for {self.num_classes} classes, the logits have {num_classes}"
            )
        with torch.autocast(device.type, enabled=False):
            self.bins = self.bins.to(device)
            answers, truth = Answers.read(outputs), Targets.join(targets)
            denoised = Denoised.read(
                outputs.denoising_meta_values,
                targets if denoising_targets is None else denoising_targets,
            )
            pairing = match_predictions(answers, truth, denoised)
            shares = LossNormalizers.measure(
                answers, truth, denoised, pairing.num_union, count, sum_over_ranks
            )
            return self._weighted(self._terms(answers, pairing, shares))

    def _weighted(self, terms):
        losses = {
            f"loss_{part}{name}": self.weights[name] * terms[part + name]
            for part in ("", "dn_")
            for name in TERMS
        }
        return {"loss": torch.stack(list(losses.values())).sum(), **losses}

    def _terms(self, answers, pairing, shares):
        """{"vfl": .., "dn_vfl": .., ..}: unweighted."""
        images, queries, boxes = pairing.shared
        true = pairing.boxes[boxes]  # [P, 4], union then denoising
        predicted = answers.boxes[images, :, queries]  # [P, K, 4]
        distance = (predicted - true[:, None]).abs().sum(-1)
        iou, giou = iou_and_giou(
            corners_of(predicted.unbind(-1)), corners_of(true[:, None].unbind(-1))
        )
        iou = iou.detach()
        left, right_weight = edge_targets(
            answers.references[images, queries], true, self.bins, self.reg_scale
        )
        edges = (
            edge_losses(answers.edges[images, :, queries], left, right_weight)
            * iou[:, answers.layer_heads]
        )
        vfl, dn_vfl = self._varifocal(answers, pairing, iou)
        ddf, dn_ddf = self._distillation(answers, pairing, iou, shares)
        terms = {
            "vfl": vfl / shares.boxes,
            "dn_vfl": dn_vfl / shares.denoised,
            "ddf": ddf,
            "dn_ddf": dn_ddf,
        }
        cut, num_heads = pairing.num_union, answers.logits.shape[1]
        for name, values in (("bbox", distance), ("giou", 1 - giou), ("fgl", edges)):
            terms[name] = values[:cut].sum() / shares.union
            terms[f"dn_{name}"] = values[cut:, :num_heads].sum() / shares.denoised
        return terms

    def _varifocal(self, answers, pairing, iou):
        """Sums over normal and over denoising queries. Each head by its own pairs; denoising by its fixed ones."""
        _, num_heads, num_queries, _ = answers.logits.shape
        images, heads, queries, boxes = pairing.own
        with torch.no_grad():
            found = answers.boxes[images, heads, queries].unbind(-1)
            quality, _ = iou_and_giou(
                corners_of(found), corners_of(pairing.boxes[boxes].unbind(-1))
            )
        labels, cut = pairing.labels[boxes], pairing.num_own
        rows = [((images * num_heads + heads) * num_queries + queries)[:cut]]
        dn_images, dn_queries, dn_boxes = (
            values[pairing.num_union :, None] for values in pairing.shared
        )
        each_head = torch.arange(num_heads, device=iou.device)
        rows.append(((dn_images * num_heads + each_head) * num_queries + dn_queries).flatten())
        dn_labels = pairing.labels[dn_boxes].expand(-1, num_heads).flatten()
        dn_quality = iou[pairing.num_union :, :num_heads].flatten()
        sums = varifocal_losses(
            answers.logits,
            torch.cat(rows),
            torch.cat([labels[:cut], dn_labels]),
            torch.cat([quality[:cut], dn_quality]),
        )  # [B, H, T]
        skip = answers.num_denoising
        total = sums[..., skip:].sum()
        if answers.proposals is not None:
            rows = images[cut:] * answers.num_queries + queries[cut:] - skip
            total = (
                total + varifocal_losses(answers.proposals, rows, labels[cut:], quality[cut:]).sum()
            )
        return total, sums[..., :skip].sum()

    def _distillation(self, answers, pairing, iou, shares):
        """The earlier layers against the last: matched queries weigh by their overlap, others by the teacher's confidence."""
        if answers.edges.shape[1] == 1:
            return answers.edges.new_zeros(()), answers.edges.new_zeros(())
        divergence = divergence_from_last(answers.edges, TEMPERATURE)  # [B, L - 1, T]
        with torch.no_grad():
            students = slice(answers.layer_heads.start, answers.layer_heads.stop - 1)
            weights = (
                answers.logits[:, -1].amax(-1).sigmoid_()[:, None].repeat(1, divergence.shape[1], 1)
            )
            skip, cut = answers.num_denoising, pairing.num_union
            weights[..., skip:] *= shares.unmatched
            weights[..., :skip] *= shares.dn_unmatched
            images, queries, _ = pairing.shared
            matched = iou[:, students].clone()
            matched[:cut] *= shares.matched
            matched[cut:] *= shares.dn_matched
            weights[images, :, queries] = matched
        losses = divergence * weights * TEMPERATURE**2
        return losses[..., skip:].sum(), losses[..., :skip].sum()
