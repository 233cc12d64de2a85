"""What we say of the loss of the library's D-FINE."""

from types import SimpleNamespace

from visionloop.bin.benchmarks.faults.detectors import CLASSES, random_targets
from visionloop.bin.benchmarks.faults.report import Claim, larger_second_rank

PAGE, LOSS = "tasks/detection/README.md", "tasks/detection/loss.py"
LAYERS, QUERIES = 3, 6


def random_heads(pictures):
    """What a forward in training gives the loss, without denoising; leaves that want a gradient."""
    import torch

    base = torch.cat([0.2 + 0.6 * torch.rand(pictures, 1, QUERIES, 2), 0.1 + 0.2 * torch.rand(pictures, 1, QUERIES, 2)], -1)
    near = (base + 0.02 * torch.randn(pictures, LAYERS + 1, QUERIES, 4)).clamp(0.01, 0.99)
    leaves = {
        "logits": torch.randn(pictures, LAYERS + 1, QUERIES, CLASSES),
        "boxes": near,
        "corners": torch.randn(pictures, LAYERS, QUERIES, 4 * 33),
        "proposal_logits": torch.randn(pictures, QUERIES, CLASSES),
        "proposals": base[:, 0].clone(),
    }
    return SimpleNamespace(**{name: leaf.requires_grad_() for name, leaf in leaves.items()}, start=base.expand(-1, LAYERS, -1, -1))


def library_loss(heads, targets):
    """(loss, {term: value}, heads as the loss took them)."""
    from transformers import DFineConfig
    from transformers.loss.loss_d_fine import DFineForObjectDetectionLoss

    return DFineForObjectDetectionLoss(
        heads.logits[:, -1], targets, heads.logits.device, heads.boxes[:, -1], DFineConfig(num_labels=CLASSES, auxiliary_loss=True),
        heads.logits, heads.boxes, enc_topk_logits=heads.proposal_logits, enc_topk_bboxes=heads.proposals,
        predicted_corners=heads.corners, initial_reference_points=heads.start,
    )  # fmt: skip


def paired_heads():
    heads = random_heads(2)
    taken = [head for head in library_loss(heads, random_targets(2, 3))[2] if "pred_corners" in head]
    names, found = ["pre", *(f"layer {layer}" for layer in range(LAYERS))], []
    for head in taken:
        logits = next(i for i in range(LAYERS + 1) if (head["logits"] == heads.logits[:, i]).all())
        corners = next(i for i in range(LAYERS) if (head["pred_corners"] == heads.corners[:, i]).all())
        found.append((logits, corners + 1))  # the logits have one head more in front
    pairs = "; ".join(f"{names[logits]} with {names[corners]}" for logits, corners in found)
    return bool(found) and all(corners == logits + 1 for logits, corners in found), {"classes and boxes of": pairs}


def last_distribution():
    import torch

    heads = random_heads(2)
    gradient = torch.autograd.grad(library_loss(heads, random_targets(2, 3))[0], heads.corners)[0]
    norms = [gradient[:, layer].norm().item() for layer in range(LAYERS)]
    return norms[-1] == 0 < norms[0], {f"gradient of layer {layer}": norm for layer, norm in enumerate(norms)}


def pairs_of_boxes():
    import torch

    heads, targets = random_heads(1), random_targets(1)
    with torch.no_grad():  # every head takes another query for the one box
        heads.boxes.fill_(0.05)
        for head in range(LAYERS + 1):
            heads.boxes[0, head, head] = 0.98 * targets[0]["boxes"][0]
    moved = torch.autograd.grad(library_loss(heads, targets)[0], heads.boxes)[0].abs().sum(-1) > 0  # [1, heads, queries]
    most, union = moved.sum(-1).max().item(), moved.any(1).sum().item()
    return most == 1 < union, {"queries with a box in the union of heads": union, "in a head of the loss, at most": most}


def boxes_of_one_rank():
    heads, targets = random_heads(2), random_targets(2, 3)
    alone = library_loss(heads, targets)[0].item()
    with larger_second_rank() as asked:
        beside = library_loss(heads, targets)[0].item()
    return not asked and alone == beside, {"loss alone": alone, "beside a rank with more boxes": beside, "sums over ranks": len(asked)}


CLAIMS = (
    Claim(
        "heads are paired with the distributions of the next layer",
        (
            (PAGE, "it pairs the class and box heads of one layer with the distributions of the next"),
            (LOSS, "it pairs layers with the wrong heads"),
        ),
        paired_heads,
    ),
    Claim(
        "the last layer learns no distributions",
        ((PAGE, "has no distribution loss on the last layer"), (LOSS, "leaves the last layer without distributions")),
        last_distribution,
    ),
    Claim(
        "boxes are matched head by head, without a union",
        ((PAGE, "on the last layer and no union"), (LOSS, "matches boxes layer by layer instead of by the union")),
        pairs_of_boxes,
    ),
    Claim("the loss divides by one rank's boxes", ((PAGE, "divides by the boxes of its own rank"),), boxes_of_one_rank),
)
