"""What the loss of EoMT costs: ours against the library's with its matcher, on equal answers and at equally many points."""

from functools import partial

import click

from visionloop.bin.benchmarks.turns import take_turns

NUMBERS = ("batch_size", "levels", "queries", "grid", "masks", "points")


def measurements(*, shapes, classes, device, repeats):
    """Yields {figure: value} of each shape: medians of forward and backward in ms, their ratios, and host reads by operation.

    "criterion" is ours, "own_points" with share_candidates=False, "dense" with points=0: another
    objective, no sampling at all.
    """
    from visionloop.tasks.segmentation.loss import EomtCriterion

    for shape in map(numbers_of, shapes):
        if shape["masks"] > classes:
            raise click.BadParameter(
                f"--shape: {shape['masks']} masks of an image, each of a class of its own, and {classes} classes"
            )
        answers, masks, labels = random_answers(classes, device, **shape)
        points = shape["points"]
        ways = {
            "criterion": equal_points(classes, points),
            "own_points": equal_points(classes, points, share_candidates=False),
            "dense": EomtCriterion(classes, points=0),
        }
        sides = {
            name: partial(total_of, criterion, *answers, masks, labels)
            for name, criterion in ways.items()
        }
        # the library cannot read bool masks
        sides["library"] = partial(
            library_loss_of(classes, points), *answers, [maps.float() for maps in masks], labels
        )
        medians, ratios, reads = take_turns(sides, answers, device, repeats)
        ratios = {f"{name}_times_faster": ratio for name, ratio in ratios.items()}
        yield {**shape, "masks": sum(map(len, masks)), **medians, **ratios, **reads}


def numbers_of(shape):
    """{name: number} of a --shape."""
    numbers = [int(number) if number.strip().isdecimal() else 0 for number in shape.split(",")]
    if len(numbers) != len(NUMBERS) or min(numbers) < 1:
        raise click.BadParameter(
            f"expected {len(NUMBERS)} numbers from 1 with commas between them ({', '.join(NUMBERS)}), got {shape!r}"
        )
    return dict(zip(NUMBERS, numbers, strict=True))


def equal_points(num_classes, points, **options):
    """Our criterion at as many points as the library, even where that is more than the answer has pixels."""
    from visionloop.tasks.segmentation.loss import EomtCriterion

    class Criterion(EomtCriterion):
        def num_points(self, mask_logits):
            return self.points

    return Criterion(num_classes, points=points, **options)


def total_of(criterion, *answers_and_targets):
    return criterion(*answers_and_targets)["loss"]


def library_loss_of(num_classes, points):
    """The library's loss of all levels, weighted and summed as its model does."""
    from transformers import EomtConfig
    from transformers.models.eomt.modeling_eomt import EomtLoss

    config = EomtConfig(num_labels=num_classes, train_num_points=points)
    weights = {
        "loss_cross_entropy": config.class_weight,
        "loss_mask": config.mask_weight,
        "loss_dice": config.dice_weight,
    }
    criterion = EomtLoss(config, weights)

    def compute(mask_logits, class_logits, masks, labels):
        criterion.to(mask_logits.device)
        *others, last = (
            {
                "masks_queries_logits": mask_logits[:, level],
                "class_queries_logits": class_logits[:, level],
            }
            for level in range(mask_logits.shape[1])
        )
        found = criterion(
            **last, mask_labels=masks, class_labels=labels, auxiliary_predictions=others
        )
        return sum(weights[name.rstrip("_0123456789")] * value for name, value in found.items())

    return compute


def random_answers(classes, device, *, batch_size, levels, queries, grid, masks, points):
    """((mask logits, class logits), masks, labels): blobs that divide each image of four times the grid's side, as class masks do."""
    import torch
    from torch.nn import functional as F

    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return (
            torch.randn(batch_size, levels, queries, *shape, generator=generator)
            .to(device)
            .requires_grad_()
        )

    answers = normal(grid, grid), normal(classes + 1)
    spread = (
        min(4, masks - 1, classes - masks) if batch_size > 1 else 0
    )  # images differ, and have so many in the mean
    sizes = (
        masks + torch.randint(-spread, spread + 1, (batch_size,), generator=generator)
    ).tolist()
    targets, labels = [], []
    for size in sizes:
        rough = torch.rand(1, size, 6, 6, generator=generator)
        ids = F.interpolate(rough, size=(4 * grid, 4 * grid), mode="bilinear")[0].argmax(0)
        targets.append((ids == torch.arange(size)[:, None, None]).to(device))
        labels.append(torch.randperm(classes, generator=generator)[:size].to(device))
    return answers, targets, labels
