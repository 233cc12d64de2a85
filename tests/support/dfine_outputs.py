"""Random outputs of D-FINE in the shapes of the DFineModelOutput of transformers."""

from types import SimpleNamespace

import torch

LEAVES = (
    "intermediate_logits",
    "intermediate_reference_points",
    "intermediate_predicted_corners",
    "enc_topk_logits",
    "enc_topk_bboxes",
)


def random_boxes(generator, *shape):
    centers, sides = (torch.rand(*shape, 2, generator=generator) for _ in range(2))
    return torch.cat([0.2 + 0.6 * centers, 0.05 + 0.3 * sides], -1)


def random_targets(generator, sizes, classes):
    return [
        {
            "class_labels": torch.randint(0, classes, (size,), generator=generator),
            "boxes": random_boxes(generator, size),
        }
        for size in sizes
    ]


def denoising_meta(sizes, denoising, queries):
    """The layout of denoising queries in transformers, None without a box.

    Each group has the positives of the fullest image and then as many negatives.
    """
    if not denoising or not max(sizes):
        return None
    groups = max(1, denoising // max(sizes))
    starts = 2 * max(sizes) * torch.arange(groups)
    positives = [(starts[:, None] + torch.arange(size)).flatten() for size in sizes]
    return {
        "dn_positive_idx": positives,
        "dn_num_group": groups,
        "dn_num_split": [2 * max(sizes) * groups, queries],
    }


def random_outputs(
    sizes, *, layers=3, queries=10, classes=4, denoising=6, reg_max=32, seed=0, spread=0.03
):
    """(outputs, targets) of images with so many boxes each.

    The tensors of `LEAVES` require gradients. spread: how far the heads' boxes of a query lie from
    each other.
    """
    generator = torch.Generator().manual_seed(seed)
    targets, meta = (
        random_targets(generator, sizes, classes),
        denoising_meta(sizes, denoising, queries),
    )
    skip = meta["dn_num_split"][0] if meta else 0
    total, images = skip + queries, len(sizes)
    boxes = random_boxes(generator, images, 1, total)
    shaken = boxes + spread * torch.randn(images, layers + 2, total, 4, generator=generator)
    outputs = SimpleNamespace(
        intermediate_logits=torch.randn(images, layers + 1, total, classes, generator=generator)
        - 1,
        intermediate_reference_points=shaken[:, :-1].clone(),
        intermediate_predicted_corners=2
        * torch.randn(images, layers, total, 4 * (reg_max + 1), generator=generator),
        initial_reference_points=boxes.expand(-1, layers, -1, -1),
        enc_topk_logits=torch.randn(images, queries, classes, generator=generator) - 1,
        enc_topk_bboxes=shaken[:, -1, skip:].clone(),
        denoising_meta_values=meta,
    )
    return with_gradients(outputs), targets


def with_gradients(outputs):
    """A copy whose tensors are leaves."""
    values = dict(vars(outputs))
    for name in LEAVES:
        values[name] = (
            None if values[name] is None else values[name].detach().clone().requires_grad_()
        )
    return SimpleNamespace(**values)


def gradients(outputs, loss):
    """{name: gradient, float64} of the leaves."""
    names = [name for name in LEAVES if getattr(outputs, name) is not None]
    values = torch.autograd.grad(
        loss, [getattr(outputs, name) for name in names], allow_unused=True, materialize_grads=True
    )
    return {name: gradient.double() for name, gradient in zip(names, values, strict=True)}


def evaluation_form(outputs):
    """The last layer alone, without denoising, as the model returns it in eval mode."""
    skip = outputs.denoising_meta_values["dn_num_split"][0] if outputs.denoising_meta_values else 0
    values = dict(vars(outputs), denoising_meta_values=None)
    for name in (*LEAVES[:3], "initial_reference_points"):
        values[name] = values[name][:, -1:, skip:]
    return with_gradients(SimpleNamespace(**values))


def rows_of(outputs, targets, rows):
    """The images `rows` of a batch, with the denoising layout of the whole."""
    values = {
        name: value[rows] if isinstance(value, torch.Tensor) else value
        for name, value in vars(outputs).items()
    }
    meta = outputs.denoising_meta_values
    if meta:
        values["denoising_meta_values"] = meta | {"dn_positive_idx": meta["dn_positive_idx"][rows]}
    return SimpleNamespace(**values), targets[rows]
