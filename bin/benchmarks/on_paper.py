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
from visionloop.bin.benchmarks.results import (
    Row,
    append_line,
    describe_environment,
    print_legend,
    print_table,
)
from visionloop.bin.benchmarks.tasks import new_task
from visionloop.bin.model_zoo.listing import MODEL_ZOOS, find_model

if TYPE_CHECKING:
    import torch

    from visionloop.engine.sharding.memory_estimate import ModelSizes

    BlocksOf = Callable[[torch.nn.Module], Sequence[torch.nn.Module]]

# a detector's forward needs boxes, and their number decides what it saves
TASKS = ("classification", "segmentation", "super_resolution")
GIB = 2**30
# over how many GPUs the model is divided: with 8 in a node, 8 is `--shard node` on any number
SHARDED_OVER = (1, 8, 64)
GPU_MEMORY_GIB = (24, 80)
ACTIVATIONS = {
    "each_gib": "saved for backward per sample, without the loss",
    "shared_gib": "saved for backward whatever the number of samples: weights in the precision of"
    " autocast",
    "plain, recomputed": "without and with --grad-checkpointing",
}
MEMORY = {
    "over": "GPUs that the model is divided over. 1: --shard none on any number of GPUs; 8: full on"
    " 8, and node on any number, with 8 in a node; 64: full on 64",
    "state_gib": "weights, gradients, two moments of AdamW and the EMA on a GPU in fp32: a fifth"
    " each",
    "gathered_gib": "whole weights of the root and of the two largest blocks in fp32",
    "bf16_gib": "the same in bf16",
    "unreduced_gib": "whole gradients of the root and of the largest block",
    "step_gib": "largest sum in a step, gathered in fp32, without activations",
    "evaluation_gib": "during an evaluation: whole weights in fp32, moments and EMA",
    "in_24, in_80_gib": "largest micro-batch in fp32 gathers for a GPU with that many GiB, whose"
    " own needs are left out: plain / recomputed",
}


@click.command(
    "on-paper",
    help="Compute the memory of a training step of the released models at full size, with and"
    " without --shard, on a machine that does not have that memory.",
)
@click.option("--task", "task_name", type=click.Choice(TASKS), default="segmentation", help="Task")
@click.option("--model", help="One model by name (default: all models of the task)")
@shared_options("json", precision="bf16")
def on_paper(task_name: str, model: str | None, precision: str, json_file: Path | None) -> None:
    rows = list(model_rows(task_name, precision, model))
    context = describe_environment(task=task_name, precision=precision)
    whole = [row for row in rows if row["over"] == SHARDED_OVER[0]]
    names = ("model", "side_pixels", "weights_million")
    activations = [name for name in whole[0] if name.startswith(("plain_", "recomputed_"))]
    shown = [name for name in activations if "most_in" not in name]
    print_table([{name: row[name] for name in (*names, *shown)} for row in whole])
    print_legend(ACTIVATIONS)
    click.echo()
    print_table([printed_memory(row) for row in rows])
    print_legend(MEMORY | context)
    for row in rows:
        append_line(json_file, {"benchmark": "on-paper", **context, **row})


def printed_memory(row: Row) -> Row:
    """Return the cells of a row in the table of memory: the model's name stands in its first."""
    is_first = row["over"] == SHARDED_OVER[0]
    cells = {name: row[name] for name in MEMORY if name in row}
    for gib in GPU_MEMORY_GIB:
        plain, recomputed = (row[f"{kind}_most_in_{gib}_gib"] for kind in ("plain", "recomputed"))
        cells[f"in_{gib}_gib"] = f"{plain} / {recomputed}"
    return {"model": row["model"] if is_first else ""} | cells


def model_rows(task_name: str, precision: str, model_id: str | None = None) -> Iterator[Row]:
    """Yield the rows of each model of a task, or of one: one for each number in SHARDED_OVER.

    Raises UserError for an unknown name.
    """
    import torch
    from tqdm import tqdm

    from visionloop.engine.sharding.memory_estimate import model_sizes

    table = next(table for table in MODEL_ZOOS if table.command.replace("-", "_") == task_name)
    models = [find_model(model_id, table.value)[1]] if model_id else table.models
    find_blocks = blocks_of(task_name)
    for model in tqdm(models, unit="model", disable=None):
        side, build = model.input_size, partial(table.build_network, model)
        saved = {}
        for blocks, number in product((None, find_blocks), (1, 2)):
            size = saved_bytes(build, (number, 3, side, side), precision, blocks)
            saved[blocks is not None, number] = size
        with torch.device("meta"):
            module = build()
        sizes = model_sizes(module, find_blocks(module))
        weights = round(sizes.num_weights / 1e6, 1)
        row = {"model": model.model_id, "side_pixels": side, "weights_million": weights}
        for over in SHARDED_OVER:
            yield row | {"over": over} | memory_figures(sizes, over, saved)


def memory_figures(sizes: "ModelSizes", over: int, saved: Mapping[tuple[bool, int], int]) -> Row:
    """Return {figure: GiB, or samples}.

    over: GPUs that the model is divided over; saved: {(recomputed, number of samples): bytes}.
    """
    from visionloop.engine.sharding.memory_estimate import evaluation_memory, memory_per_gpu

    memory = memory_per_gpu(sizes, ranks=over, ema=True)
    in_bf16 = memory_per_gpu(sizes, ranks=over, ema=True, gather_bytes=2)
    in_bytes = {
        "weights_gib": memory.weights,
        "gradients_gib": memory.gradients,
        "moments_gib": memory.moments,
        "ema_gib": memory.ema,
        "state_gib": memory.state,
        "gathered_gib": memory.gathered,
        "bf16_gib": in_bf16.gathered,
        "unreduced_gib": memory.unreduced,
        "step_gib": memory.total,
        "evaluation_gib": evaluation_memory(sizes, ranks=over, ema=True),
    }
    figures: Row = {name: round(number / GIB, 3) for name, number in in_bytes.items()}
    for name, recomputed in (("plain", False), ("recomputed", True)):
        each = saved[recomputed, 2] - saved[recomputed, 1]
        shared = saved[recomputed, 1] - each  # weights in the autocast precision
        figures[f"{name}_each_gib"] = round(each / GIB, 3)
        figures[f"{name}_shared_gib"] = round(shared / GIB, 3)
        for gib in GPU_MEMORY_GIB:
            room = gib * GIB - memory.total - shared
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
