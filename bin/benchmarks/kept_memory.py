"""What a training step of a model keeps in memory, found without that memory: its forward is run on tensors that have no contents.

The sum is over the storages that autograd keeps, like `same_step.SameStep.saved_mib` of a real
step. It equals that of a real forward in fp32, and in bf16 to 2 % (tested).
"""

from contextlib import contextmanager
from functools import partial

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from tqdm import tqdm

from visionloop.bin.model_zoo.listing import TABLES, find_model
from visionloop.engine.grad_checkpointing import apply_grad_checkpointing

GIB = 2**30
STATE_BYTES = (
    20  # of a weight: itself, its gradient, two moments of AdamW and the average, each in fp32
)
CARDS_GIB = (24, 80)  # for which the largest micro-batch is told


def blocks_of(task_name):
    """module -> the blocks that --grad-checkpointing recomputes."""
    if task_name == "segmentation":
        return lambda module: [*module.layers, module.heads]
    from visionloop.tasks.classification.model import recomputed_blocks as of_classifiers
    from visionloop.tasks.super_resolution.network import recomputed_blocks as of_restorers

    return {"classification": of_classifiers, "super_resolution": of_restorers}[task_name]


def rows_on_paper(task_name, precision, model_id=None):
    """Yields {figure: value} of each model of the task's table, or of one. Raises UserError for another name."""
    table = next(table for table in TABLES if table.command.replace("-", "_") == task_name)
    models = [find_model(model_id, table.value)[1]] if model_id else table.models
    for model in tqdm(models, unit="model", disable=None):
        side, build = model.input_size, partial(table.build_network, model)
        kept = {
            (recompute, number): kept_bytes(build, (number, 3, side, side), precision, recompute)
            for recompute in (None, blocks_of(task_name))
            for number in (1, 2)
        }
        yield {
            "model": model.model_id,
            "side_pixels": side,
            "weights_million": round(model.params / 1e6, 1),
        } | figures(model.params, kept)


def figures(weights, kept):
    """{figure: GiB, or samples}. kept: {(blocks to recompute, images): bytes}."""
    state = STATE_BYTES * weights
    found = {"state_gib": state / GIB}
    for name, recompute in (("plain", None), ("recomputed", next(key for key, _ in kept if key))):
        each = kept[recompute, 2] - kept[recompute, 1]
        shared = kept[recompute, 1] - each  # weights in the precision of autocast
        found |= {f"{name}_shared_gib": shared / GIB, f"{name}_each_gib": each / GIB}
        found |= {
            f"{name}_most_in_{card}_gib": max(0, int((card * GIB - state - shared) // each))
            for card in CARDS_GIB
        }
    return {
        name: round(value, 3) if isinstance(value, float) else value
        for name, value in found.items()
    }


def kept_bytes(build, shape, precision, recompute=None, *, real=False):
    """Bytes that autograd keeps of a forward in train mode, besides weights, each storage once.

    build() -> module; shape: of pixel_values; recompute: module -> blocks, see
    engine/grad_checkpointing; real: with real tensors instead.
    """
    with _module(build, real) as module:
        module.train()
        if recompute:
            apply_grad_checkpointing(recompute(module))
        weights = {parameter.untyped_storage()._cdata for parameter in module.parameters()}
        kept = {}

        def keep(tensor):
            storage = tensor.untyped_storage()
            if storage._cdata not in weights:
                kept[storage._cdata] = storage  # held, or its number would be given to another one
            return tensor

        with (
            saved_tensors_hooks(keep, lambda tensor: tensor),
            torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"),
        ):
            outputs = module(torch.zeros(shape))
        total = sum(storage.nbytes() for storage in kept.values())
        del outputs
    return total


@contextmanager
def _module(build, real):
    """The module, and inside the block tensors as it needs them."""
    if real:
        yield build()
        return
    with torch.device("meta"):
        module = build()
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield module.to_empty(device="cpu")
