"""What the loss of a detector costs: ours against the library's, on equal answers."""

import json
import statistics
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import click

DENOISING = 100  # the library makes about twice as many queries of it


@click.command(help="Our criterion against the library's loss: forward and backward on equal random answers, in turn in one process.")
@click.option("--task", "task_name", type=click.Choice(["detection"]), default="detection", show_default=True)
@click.option("--batch-size", "batch_sizes", type=int, multiple=True, default=[4, 16], show_default=True)
@click.option("--layers", type=int, default=6, show_default=True, help="layers of the decoder")
@click.option("--queries", type=int, default=300, show_default=True, help="besides about 200 for denoising")
@click.option("--classes", type=int, default=80, show_default=True)
@click.option("--threads", type=int, default=1, show_default=True)
@click.option("--repeats", type=int, default=15, show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="append the figures to this file, one object a line")
def loss(task_name, batch_sizes, json_file, **options):
    import torch

    from visionloop.bin.benchmarks.environment import describe_environment
    from visionloop.engine.distributed import pick_device

    torch.set_num_threads(options["threads"])
    shape = {name: options[name] for name in ("layers", "queries", "classes")}
    network_reads = reads_of_the_network()
    for batch_size in batch_sizes:
        figures = measure(batch_size, device=pick_device(options["device"]), repeats=options["repeats"], **shape)
        figures |= {"network_reads": network_reads, **describe_environment(options | {"batch_size": batch_size})}
        for name, value in figures.items():
            click.echo(f"{name:24} {value}")
        if json_file:
            with open(json_file, "a") as file:
                file.write(json.dumps({"benchmark": "loss", "task": task_name, **figures}) + "\n")


def measure(batch_size, *, device, repeats, **shape):
    """{figure: value}: medians of forward and backward in ms, their ratio, and host reads by operation."""
    import torch

    outputs, targets = random_answers(batch_size, device, **shape)
    leaves = [tensor for tensor in vars(outputs).values() if isinstance(tensor, torch.Tensor) and tensor.requires_grad]
    sides = {"criterion": criterion_of(shape["classes"]), "library": library_loss_of(shape["classes"])}
    seconds, reads = {name: [] for name in sides}, {}
    for name, compute in sides.items():
        with counted_reads() as found:
            torch.autograd.grad(compute(outputs, targets), leaves, allow_unused=True)
        reads[f"{name}_reads"] = dict(found)
    for turn in range(repeats + 1):
        for name, compute in sides.items():
            began = synchronised(device)
            torch.autograd.grad(compute(outputs, targets), leaves, allow_unused=True)
            if turn:  # the first one warms up
                seconds[name].append(synchronised(device) - began)
    pairs = [other / own for own, other in zip(seconds["criterion"], seconds["library"], strict=True)]
    medians = {f"{name}_ms": round(1000 * statistics.median(values), 2) for name, values in seconds.items()}
    boxes = sum(len(target["boxes"]) for target in targets)
    return {"batch_size": batch_size, "boxes": boxes, **medians, "times_faster": round(statistics.median(pairs), 2), **reads}


def synchronised(device):
    """The clock, once the device has done all it was given."""
    import torch

    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()


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
    """(outputs, targets) of a training forward; pictures have 1 to 14 boxes, about as many as in COCO."""
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
        "intermediate_reference_points": (base + 0.02 * normal(layers + 1, total, 4)).clamp(0.01, 0.99),
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
    return outputs, [{"class_labels": ids.to(device), "boxes": boxes(len(ids)).to(device)} for ids in labels]


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


@contextmanager
def counted_reads():
    """Yields {operation: number} of what makes the host wait for a device: values read or copied to it, shapes that depend on values."""
    from torch.overrides import TorchFunctionMode
    from torch.utils._python_dispatch import TorchDispatchMode

    found = Counter()
    names = {"_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "equal", "unique", "_unique", "_unique2"}

    class Operations(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            name = function.overloadpacket.__name__
            if name in names:
                found[name.lstrip("_")] += 1
            elif name == "index" and has_mask(args[1]):
                found["index by mask"] += 1
            elif name in ("index_put", "index_put_") and has_mask(args[1]) and args[2].numel() > 1:  # one value is filled in without a look
                found["index_put by mask"] += 1
            return function(*args, **(kwargs or {}))

    class Copies(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            if getattr(function, "__name__", "") == "cpu":
                found["cpu"] += 1
            return function(*args, **(kwargs or {}))

    with Operations(), Copies():
        yield found


def has_mask(indices):
    """Whether a tensor is indexed by booleans: how many are true decides the shape."""
    import torch

    return any(index is not None and index.dtype == torch.bool for index in indices)
