"""D-FINE's loss the slow and obvious way: in float64, head by head, image by image, pair by pair.

Shares no code with the product. The specification: arXiv 2410.13842, and the authors' code for
which matching each term uses.
"""

import torch
from scipy.optimize import linear_sum_assignment
from torch.nn import functional as F

WEIGHTS = {"vfl": 1.0, "bbox": 5.0, "giou": 2.0, "fgl": 0.15, "ddf": 1.5}


def corners(box):
    cx, cy, w, h = box
    w, h = w.clamp(min=0), h.clamp(min=0)
    return cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2


def iou_and_giou(first, second):
    ax1, ay1, ax2, ay2 = corners(first)
    bx1, by1, bx2, by2 = corners(second)
    shared = (torch.min(ax2, bx2) - torch.max(ax1, bx1)).clamp(min=0) * (
        torch.min(ay2, by2) - torch.max(ay1, by1)
    ).clamp(min=0)
    joined = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - shared
    around = (torch.max(ax2, bx2) - torch.min(ax1, bx1)) * (
        torch.max(ay2, by2) - torch.min(ay1, by1)
    )
    return shared / joined, shared / joined - (around - joined) / around


def matching(logits, boxes, target):
    """{query: true box} of one head and image."""
    cost = torch.zeros(len(boxes), len(target["boxes"]), dtype=torch.float64)
    for q in range(len(boxes)):
        for g, true in enumerate(target["boxes"].double()):
            p = logits[q, target["class_labels"][g]].sigmoid()
            positive = 0.25 * (1 - p) ** 2 * -(p + 1e-8).log()
            negative = 0.75 * p**2 * -(1 - p + 1e-8).log()
            cost[q, g] = (
                2 * (positive - negative)
                + 5 * (boxes[q] - true).abs().sum()
                - 2 * iou_and_giou(boxes[q], true)[1]
            )
    return dict(
        zip(
            *(indices.tolist() for indices in linear_sum_assignment(cost.detach().numpy())),
            strict=True,
        )
    )


def union(matchings):
    """{query: true box} of one image over its heads: most votes, then the first box."""
    votes = {}
    for matches in matchings:
        for q, g in matches.items():
            votes.setdefault(q, {}).setdefault(g, 0)
            votes[q][g] += 1
    return {q: min(votes_of, key=lambda g: (-votes_of[g], g)) for q, votes_of in votes.items()}


def varifocal(logits, boxes, pairs, target):
    """One head and image. pairs: [(query, true box)]."""
    targets, weights = torch.zeros_like(logits), 0.75 * logits.detach().sigmoid() ** 2
    for q, g in pairs:
        quality = iou_and_giou(boxes[q].detach(), target["boxes"][g].double())[0]
        targets[q, target["class_labels"][g]] = weights[q, target["class_labels"][g]] = quality
    return (weights * F.binary_cross_entropy_with_logits(logits, targets, reduction="none")).sum()


def box_losses(boxes, pairs, target):
    l1 = giou = torch.zeros((), dtype=torch.float64)
    for q, g in pairs:
        true = target["boxes"][g].double()
        l1, giou = l1 + (boxes[q] - true).abs().sum(), giou + 1 - iou_and_giou(boxes[q], true)[1]
    return l1, giou


def bin_values(reg_max, reg_scale, up):
    bound = abs(up) * abs(reg_scale)
    step = (bound + 1) ** (2 / (reg_max - 2))
    values = [0.0] * (reg_max + 1)
    values[0], values[reg_max] = -2 * bound, 2 * bound
    for i in range(1, reg_max // 2):
        values[reg_max // 2 + i], values[reg_max // 2 - i] = step**i - 1, 1 - step**i
    return values


def edge_target(reference, true, values, reg_scale):
    """[(bin, weight of the bin, weight of the next)] of the four sides."""
    cx, cy, w, h = reference.tolist()
    x1, y1, x2, y2 = (float(value) for value in corners(true))
    targets, last = [], len(values) - 1
    for length, side in ((cx - x1, w), (cy - y1, h), (x2 - cx, w), (y2 - cy, h)):
        distance = length / (side / reg_scale) - reg_scale / 2
        i = sum(value <= distance for value in values) - 1
        if i < 0:
            targets.append((0, 1.0, 0.0))
        elif i >= last:
            targets.append((last - 1, 0.0, 1.0))
        else:
            right = (distance - values[i]) / (values[i + 1] - values[i])
            targets.append((i, 1 - right, right))
    return targets


def edge_loss(edges, boxes, references, pairs, target, values, reg_scale):
    """One layer and image. edges: [Q, 4, bins]."""
    total = torch.zeros((), dtype=torch.float64)
    for q, g in pairs:
        true = target["boxes"][g].double()
        quality = iou_and_giou(boxes[q].detach(), true)[0]
        for side, (i, left, right) in enumerate(
            edge_target(references[q], true, values, reg_scale)
        ):
            log_p = edges[q, side].log_softmax(-1)
            total = total + quality * -(left * log_p[i] + right * log_p[i + 1])
    return total


def distillation(edges, boxes, pairs, logits, targets, roots):
    """One student layer of the whole batch against the last.

    edges: [B, 2, Q, 4, bins] of student and teacher; pairs: per image; logits: [B, Q, C] of the
    teacher; roots: (sqrt m, sqrt r), or None: of these pairs.
    """
    matched, others = [], []
    for b, target in enumerate(targets):
        student, teacher = edges[b, 0], edges[b, 1].detach()
        box_of = dict(pairs[b])
        for q in range(len(student)):
            quality = logits[b, q].detach().sigmoid().max()
            if q in box_of:
                quality = iou_and_giou(boxes[b, q].detach(), target["boxes"][box_of[q]].double())[0]
            for side in range(4):
                p, log_q = (
                    (teacher[q, side] / 5).softmax(-1),
                    (student[q, side] / 5).log_softmax(-1),
                )
                (matched if q in box_of else others).append(
                    25 * quality * (p * (p.log() - log_q)).sum()
                )
    m, r = (len(matched) ** 0.5, len(others) ** 0.5) if roots is None else roots
    zero = torch.zeros((), dtype=torch.float64)
    mean = [torch.stack(entries).mean() if entries else zero for entries in (matched, others)]
    return (mean[0] * m + mean[1] * r) / (m + r), (m, r)


def plain_dfine_loss(outputs, targets, *, reg_max=32, reg_scale=4.0, up=0.5):
    """{"loss", "loss_<term>", "loss_dn_<term>"} of one batch on one process, in float64."""
    logits, boxes = (
        outputs.intermediate_logits.double(),
        outputs.intermediate_reference_points.double(),
    )
    edges = outputs.intermediate_predicted_corners.double().unflatten(-1, (4, reg_max + 1))
    references, meta = (
        outputs.initial_reference_points[:, 0].double(),
        outputs.denoising_meta_values,
    )
    skip = meta["dn_num_split"][0] if meta else 0
    images, layers = range(len(targets)), edges.shape[1]
    first_layer = logits.shape[1] - layers
    values, n = (
        bin_values(reg_max, reg_scale, up),
        max(1, sum(len(target["boxes"]) for target in targets)),
    )
    terms = {
        part + name: torch.zeros((), dtype=torch.float64)
        for part in ("", "dn_")
        for name in WEIGHTS
    }

    heads = [(logits[:, k, skip:], boxes[:, k, skip:]) for k in range(logits.shape[1])]
    if outputs.enc_topk_logits is not None:
        heads.append((outputs.enc_topk_logits.double(), outputs.enc_topk_bboxes.double()))
    own = [[matching(head[0][b], head[1][b], targets[b]) for b in images] for head in heads]
    joint = [list(union([matches[b] for matches in own]).items()) for b in images]
    num_union = max(1, sum(len(pairs) for pairs in joint))
    for matches, (head_logits, head_boxes) in zip(own, heads, strict=True):
        for b in images:
            terms["vfl"] = (
                terms["vfl"]
                + varifocal(head_logits[b], head_boxes[b], matches[b].items(), targets[b]) / n
            )
            l1, giou = box_losses(head_boxes[b], joint[b], targets[b])
            terms["bbox"], terms["giou"] = (
                terms["bbox"] + l1 / num_union,
                terms["giou"] + giou / num_union,
            )

    def edge_terms(part, queries, pairs, divisor, roots):
        for layer in range(layers):
            layer_boxes = boxes[:, first_layer + layer, queries]
            for b in images:
                args = (
                    edges[b, layer, queries],
                    layer_boxes[b],
                    references[b, queries],
                    pairs[b],
                    targets[b],
                    values,
                    reg_scale,
                )
                terms[f"{part}fgl"] = terms[f"{part}fgl"] + edge_loss(*args) / divisor
            if layer < layers - 1:
                two = edges[:, [layer, layers - 1]][:, :, queries]
                ddf, roots = distillation(
                    two, layer_boxes, pairs, logits[:, -1, queries], targets, roots
                )
                terms[f"{part}ddf"] = terms[f"{part}ddf"] + ddf
        return roots

    roots = edge_terms("", slice(skip, None), joint, num_union, None)
    if meta:
        groups = meta["dn_num_group"]
        fixed = [
            list(zip(queries.tolist(), list(range(len(target["boxes"]))) * groups, strict=True))
            for queries, target in zip(meta["dn_positive_idx"], targets, strict=True)
        ]
        for k in range(logits.shape[1]):
            for b in images:
                head_logits, head_boxes = logits[b, k, :skip], boxes[b, k, :skip]
                terms["dn_vfl"] = terms["dn_vfl"] + varifocal(
                    head_logits, head_boxes, fixed[b], targets[b]
                ) / (n * groups)
                l1, giou = box_losses(head_boxes, fixed[b], targets[b])
                terms["dn_bbox"], terms["dn_giou"] = (
                    terms["dn_bbox"] + l1 / (n * groups),
                    terms["dn_giou"] + giou / (n * groups),
                )
        edge_terms("dn_", slice(0, skip), fixed, n * groups, roots)
    losses = {
        f"loss_{name}": WEIGHTS[name.removeprefix("dn_")] * value for name, value in terms.items()
    }
    return {"loss": sum(losses.values()), **losses}
