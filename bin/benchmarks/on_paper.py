"""The `on-paper` benchmark: memory of full-size models, computed without having that memory.

A model's forward runs on tensors without contents. The sum over the storages that autograd saves
equals that of a real forward in fp32, and in bf16 up to 2 % (tested).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import click

from visionloop.bin.benchmarks.options import shared_options
from visionloop.bin.benchmarks.results import Row, describe_environment, write_results
from visionloop.bin.benchmarks.tasks import new_task
from visionloop.bin.model_zoo.listing import MODEL_ZOOS, find_model

if TYPE_CHECKING:
    import torch

    BlocksOf = Callable[[torch.nn.Module], Sequence[torch.nn.Module]]

# a detector's forward needs boxes, and their number decides what it saves
TASKS = ("classification", "segmentation", "super_resolution")
GIB = 2**30
# bytes per weight: itself, its gradient, two moments of AdamW and the EMA, each in fp32
STATE_BYTES = 20
GPU_MEMORY_GIB = (24, 80)
LEGEND = {
    "state_gib": "weights, gradients, two moments of AdamW and the EMA in fp32",
    "shared_gib": "saved for backward whatever the number of samples: weights in bf16",
    "each_gib": "saved for backward per sample, without the loss",
    "most_in": "largest micro-batch for a GPU with that many GiB, whose own needs are left out",
    "plain, recomputed": "without and with --grad-checkpointing",
}


@click.command(
    "on-paper",
    help="Compute the memory of a training step of the released models at full size on a machine"
    " that does not have that memory.",
)
@click.option("--task", "task_name", type=click.Choice(TASKS), default="segmentation", help="Task")
@click.option("--model", help="One model by name (default: all models of the task)")
@shared_options("json", precision="bf16")
def on_paper(task_name: str, model: str | None, precision: str, json_file: Path | None) -> None:
    rows = list(model_rows(task_name, precision, model))
    context = describe_environment(task=task_name, precision=precision)
    write_results("on-paper", rows, json_file, rows[0], LEGEND, context)


def model_rows(task_name: str, precision: str, model_id: str | None = None) -> Iterator[Row]:
    """Yield the row of each model of a task, or of one. Raises UserError for an unknown name."""
    from tqdm import tqdm

    table = next(table for table in MODEL_ZOOS if table.command.replace("-", "_") == task_name)
    models = [find_model(model_id, table.value)[1]] if model_id else table.models
    for model in tqdm(models, unit="model", disable=None):
        side, build = model.input_size, partial(table.build_network, model)
        saved = {}
        for blocks, number in product((None, blocks_of(task_name)), (1, 2)):
            size = saved_bytes(build, (number, 3, side, side), precision, blocks)
            saved[blocks is not None, number] = size
        weights = round(model.params / 1e6, 1)
        row = {"model": model.model_id, "side_pixels": side, "weights_million": weights}
        yield row | memory_figures(model.params, saved)


def memory_figures(num_weights: int, saved: Mapping[tuple[bool, int], int]) -> Row:
    """Return {figure: GiB, or samples}. saved: {(recomputed, number of samples): bytes}."""
    state = STATE_BYTES * num_weights
    figures: Row = {"state_gib": round(state / GIB, 3)}
    for name, recomputed in (("plain", False), ("recomputed", True)):
        each = saved[recomputed, 2] - saved[recomputed, 1]
        shared = saved[recomputed, 1] - each  # weights in the autocast precision
        figures[f"{name}_shared_gib"] = round(shared / GIB, 3)
        figures[f"{name}_each_gib"] = round(each / GIB, 3)
        for gib in GPU_MEMORY_GIB:
            room = gib * GIB - state - shared
            figures[f"{name}_most_in_{gib}_gib"] = max(0, int(room // each))
    return figures


def blocks_of(task_name: str) -> "BlocksOf":
    """Return the function from a module to the blocks that --grad-checkpointing recomputes."""
    return new_task(task_name, "tiny")[0].grad_checkpointing_blocks


def saved_bytes(
    build: "Callable[[], torch.nn.Module]", shape: tuple[int, ...], precision: str,
    grad_checkpointing_blocks: "BlocksOf | None" = None, *, real: bool = False,
) -> int:  # fmt: skip
    """Return the bytes that autograd saves of a forward in train mode, without weights.

    shape: of pixel_values; grad_checkpointing_blocks: module -> blocks to recompute; real:
    run on real tensors instead.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    from visionloop.bin.benchmarks.repeated_step import saved_storages
    from visionloop.engine.grad_checkpointing import apply_grad_checkpointing
    from visionloop.engine.precision import DTYPES

    with nullcontext() if real else torch.device("meta"):
        module = build()
    with nullcontext() if real else FakeTensorMode(allow_non_fake_inputs=True):
        module = (module if real else module.to_empty(device="cpu")).train()
        if grad_checkpointing_blocks:
            apply_grad_checkpointing(grad_checkpointing_blocks(module))
        autocast = torch.autocast("cpu", DTYPES[precision], enabled=precision != "fp32")
        with saved_storages(module) as sizes, autocast:
            outputs = module(torch.zeros(shape))
        del outputs
    return sum(sizes.values())
