"""What we say of the loss of the library's EoMT."""

from functools import partial

from visionloop.bin.benchmarks.faults.report import NOTHING, Claim, failure_of, larger_second_rank
from visionloop.bin.benchmarks.faults.segmenters import BLOCKS, CLASSES, QUERIES, SIDE, random_masks, small_config, small_eomt

PAGE, LOSS = "tasks/segmentation/README.md", "tasks/segmentation/loss.py"


def library_loss(answers, masks, labels):
    """{term: value} of one level. answers: (mask logits, class logits)."""
    from transformers.models.eomt.modeling_eomt import EomtLoss

    config = small_config()
    weights = {"loss_cross_entropy": config.class_weight, "loss_mask": config.mask_weight, "loss_dice": config.dice_weight}
    return EomtLoss(config, weights)(*answers, masks, labels)


def random_answers(pictures):
    import torch

    return torch.randn(pictures, QUERIES, 8, 8), torch.randn(pictures, QUERIES, CLASSES + 1)


def masks_of_one_rank():
    import torch

    answers, targets = random_answers(2), random_masks(2, 3)

    def loss_of_masks():
        torch.manual_seed(0)  # the points
        return library_loss(answers, *targets)["loss_mask"].item()

    alone = loss_of_masks()
    with larger_second_rank() as asked:
        beside = loss_of_masks()
    return not asked and alone == beside, {"mask loss alone": alone, "beside a rank with more masks": beside, "sums over ranks": len(asked)}


def copies_of_the_costs():
    import torch

    from visionloop.bin.benchmarks.reads import counted_reads

    pictures, (masks, labels) = 3, random_masks(1, 2, 3)
    with counted_reads() as found:
        small_eomt().train()(torch.rand(pictures, 3, SIDE, SIDE), mask_labels=masks, class_labels=labels)
    levels = BLOCKS + 1
    return found["cpu"] == pictures * levels, {"pictures": pictures, "levels": levels, "copies": found["cpu"]}


def bool_masks():
    answers, (masks, labels) = random_answers(2), random_masks(2, 3)
    failed = failure_of(partial(library_loss, answers, [maps.bool() for maps in masks], labels), RuntimeError)
    floats = failure_of(partial(library_loss, answers, masks, labels), RuntimeError)
    return failed != NOTHING == floats, {"bool masks": failed, "floats": floats}


def half_precision():
    import torch

    answers, (masks, labels) = random_answers(2), random_masks(2, 3)
    found = {}
    for kind in (torch.bfloat16, torch.float16):
        halves, targets = [answer.to(kind) for answer in answers], [maps.to(kind) for maps in masks]
        found[str(kind)] = failure_of(partial(library_loss, halves, targets, labels), RuntimeError)
    return NOTHING not in found.values(), found


CLAIMS = (
    Claim(
        "the loss divides by one rank's masks",
        ((PAGE, "divides by the masks of its own rank"), (LOSS, "divides by the masks of one process")),
        masks_of_one_rank,
    ),
    Claim(
        "costs are copied for each picture and level",
        ((PAGE, "copies costs B x S times"), (LOSS, "copies costs to the host once per picture and level")),
        copies_of_the_costs,
    ),
    Claim(
        "the loss fails on bool masks",
        (
            (PAGE, "fails on bool masks and half precision"),
            (LOSS, "fails on bool masks and half precision"),
            ("bin/benchmarks/loss_segmentation.py", "the library cannot read bool masks"),
        ),
        bool_masks,
    ),
    Claim(
        "the loss fails in half precision",
        ((PAGE, "fails on bool masks and half precision"), (LOSS, "fails on bool masks and half precision")),
        half_precision,
    ),
)
