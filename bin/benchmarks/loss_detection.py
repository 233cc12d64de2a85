"""What the loss of a detector costs: ours against the library's, on equal answers."""

from functools import partial

from visionloop.bin.benchmarks.reads import counted_reads
from visionloop.bin.benchmarks.turns import take_turns

DENOISING = 100  # the library makes about twice as many queries of it


def measurements(*, batch_sizes, device, repeats, **shape):
    """Yields {figure: value} of each batch size: medians of forward and backward in ms, their ratio, and host reads by operation.

    shape: layers, queries, classes.
    """
    network_reads = reads_of_the_network()
    for batch_size in batch_sizes:
        outputs, targets = random_answers(batch_size, device, **shape)
        leaves = [tensor for tensor in vars(outputs).values() if tensor_with_gradient(tensor)]
        criterion, library = criterion_of(shape["classes"]), library_loss_of(shape["classes"])
        sides = {
            "criterion": partial(criterion, outputs, targets),
            "library": partial(library, outputs, targets),
        }
        medians, ratios, reads = take_turns(sides, leaves, device, repeats)
        boxes = sum(len(target["boxes"]) for target in targets)
        times_faster = {"times_faster": ratios["criterion"]}
        yield {
            "batch_size": batch_size,
            "boxes": boxes,
            **medians,
            **times_faster,
            **reads,
            "network_reads": network_reads,
        }


def tensor_with_gradient(value):
    import torch

    return isinstance(value, torch.Tensor) and value.requires_grad


def criterion_of(num_classes):
    from visionloop.tasks.detection.loss import DFineCriterion

    criterion = DFineCriterion(num_classes)
    return lambda outputs, targets: criterion(outputs, targets)["loss"]


def library_loss_of(num_classes):
    from transformers import DFineConfig
    from transformers.loss.loss_d_fine import DFineForObjectDetectionLoss

    config = DFineConfig(num_labels=num_classes, auxiliary_loss=True)

    def compute(outputs, targets):
        logits, boxes = outputs.intermediate_logits, outputs.intermediate_reference_points
        return DFineForObjectDetectionLoss(
            logits[:, -1], targets, logits.device, boxes[:, -1], config, logits, boxes,
            enc_topk_logits=outputs.enc_topk_logits, enc_topk_bboxes=outputs.enc_topk_bboxes,
            denoising_meta_values=outputs.denoising_meta_values, predicted_corners=outputs.intermediate_predicted_corners,
            initial_reference_points=outputs.initial_reference_points,
        )[0]  # fmt: skip

    return compute


def random_answers(batch_size, device, *, layers, queries, classes):
    """(outputs, targets) of a training forward; images have 1 to 14 boxes, about as many as in COCO."""
    from types import SimpleNamespace

    import torch

    generator = torch.Generator().manual_seed(0)
    sizes = torch.randint(1, 15, (batch_size,), generator=generator).tolist()
    groups, most = DENOISING // max(sizes), max(sizes)
    skip = 2 * most * groups
    total = skip + queries
    starts = 2 * most * torch.arange(groups)[:, None]
    positives = [(starts + torch.arange(size)).flatten().to(device) for size in sizes]

    def normal(*shape):
        return torch.randn(batch_size, *shape, generator=generator)

    def boxes(*shape):
        centres, sides = torch.rand(2, *shape, 2, generator=generator)
        return torch.cat([0.2 + 0.6 * centres, 0.05 + 0.3 * sides], -1)

    base = boxes(batch_size, 1, total)
    leaves = {
        "intermediate_logits": normal(layers + 1, total, classes) - 3,
        "intermediate_reference_points": (base + 0.02 * normal(layers + 1, total, 4)).clamp(
            0.01, 0.99
        ),
        "intermediate_predicted_corners": normal(layers, total, 4 * 33),
        "enc_topk_logits": normal(queries, classes) - 3,
        "enc_topk_bboxes": base[:, 0, skip:].clone(),
    }
    meta = {"dn_positive_idx": positives, "dn_num_group": groups, "dn_num_split": [skip, queries]}
    outputs = SimpleNamespace(
        **{name: tensor.to(device).requires_grad_() for name, tensor in leaves.items()},
        initial_reference_points=base.expand(-1, layers, -1, -1).to(device), denoising_meta_values=meta,
    )  # fmt: skip
    labels = [torch.randint(0, classes, (size,), generator=generator) for size in sizes]
    return outputs, [
        {"class_labels": ids.to(device), "boxes": boxes(len(ids)).to(device)} for ids in labels
    ]


def reads_of_the_network():
    """{operation: number}: what the library's network reads from the device in one training forward of the tiny size, without a loss."""
    import torch

    from visionloop.tasks.detection.model import new_config, new_model

    torch.manual_seed(0)
    network = new_model(new_config("tiny"), ["first", "second", "third"]).train()
    _, targets = random_answers(2, torch.device("cpu"), layers=1, queries=1, classes=3)
    with counted_reads() as found:
        network(torch.rand(2, 3, 256, 256), labels=targets)
    return dict(found)
