"""Runs of the toy task with `--shard` on a few processes, and what they leave on disk."""

import os
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

# once here, not in every forked rank: fully_shard imports the first, a run the second
import torch._dynamo
import torch.utils.tensorboard
from safetensors.torch import load_file
from torch import nn
from toy_task import ToyConfig, ToyTask

from visionloop.engine.checkpoints.stored_tensors import StoredTensors, is_sharded
from visionloop.engine.ema import named_state
from visionloop.engine.errors import UserError
from visionloop.engine.optim import state_by_name
from visionloop.engine.prepare import prepare_run, set_process
from visionloop.engine.run import TrainState
from visionloop.engine.system.signals import StopFlag
from visionloop.engine.tensors import whole
from visionloop.engine.testing.short_runs import (
    CONFIG,
    STEPS,
    on_ranks,
    same_bits,
    spec_of,
    train_steps,
)

KINDS = ("weights", "optimizer", "ema")
# 8 samples on 2 and on 4 ranks, two micro-batches on one
SETTINGS = {"micro_batch": 4}


class OddModel(nn.Module):
    """A tensor without elements, one without dimensions, and fewer rows than ranks."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.tokens = nn.Parameter(torch.empty(1, 0, 32))
        self.scale = nn.Parameter(torch.ones(1))
        self.block = nn.Linear(2, 2)  # two rows

    def forward(self, pixel_values):
        return self.block(self.model(pixel_values)) * self.scale


class OddToy(ToyTask):
    def build_model(self):
        return OddModel(super().build_model()).train()

    def grad_checkpointing_blocks(self, module):
        return [module.model.block, module.block]


class EvenToy(ToyTask):
    """Shards of two ranks that fill vector registers, or are scalars.

    Fused optimizers round what is left over otherwise, so other shards have other last bits.
    """

    def build_model(self):
        module = super().build_model()
        module.stem = nn.Conv2d(3, 32, 8, stride=8)
        if self.config.batch_norm:
            module.norm = nn.BatchNorm2d(32)
        return module.train()


class PoisonedToy(EvenToy):
    """Its poison is on the last rank alone."""

    def loss(self, model, batch, normalizers):
        is_last = int(os.environ["RANK"]) == int(os.environ["WORLD_SIZE"]) - 1
        poison = self.config.poison
        self.config = replace(self.config, poison=poison if is_last else "")
        losses = super().loss(model, batch, normalizers)
        self.config = replace(self.config, poison=poison)
        return losses


TASKS = {"toy": EvenToy, "odd": OddToy, "poisoned": PoisonedToy}


def make_toy(task="toy", **toy):
    """Return a toy without dropout. task: key of TASKS; toy: changes to its settings."""
    return TASKS[task](ToyConfig(**{"dropout": 0.0} | toy))


def train_toy(output, settings):
    """Train, or resume, in this process. All ranks.

    Args:
        output: the folder of the run.
        settings: changes to the engine's settings of short runs; "task" and "toy", see `make_toy`;
            "stop_after", a step; "local_size", processes of a node.

    Returns:
        [state, step, scores], or ["failed", code, message] of a UserError.
    """
    settings = SETTINGS | settings
    toy = make_toy(settings.pop("task", "toy"), **settings.pop("toy", {}))
    stop_after = settings.pop("stop_after", None)
    os.environ["LOCAL_WORLD_SIZE"] = str(settings.pop("local_size", os.environ["WORLD_SIZE"]))
    try:
        config = replace(CONFIG, **settings)
        result = train_steps(toy, Path(output), config=config, stop_after=stop_after)
    except UserError as error:
        return ["failed", error.code, str(error)]
    return [result.state, result.step, result.scores]


def train_toys(folder, variants):
    """Train one run after the other. All ranks. variants: {name: settings of `train_toy`}."""
    return {name: train_toy(f"{folder}/{name}", settings) for name, settings in variants.items()}


def train_on(processes, folder, **variants):
    """Train runs on some processes; return {name: result of the main rank}."""
    return on_ranks(processes, train_toys, str(folder), variants, context="fork")[0]


@contextmanager
def started(output, settings):
    """Yield a run at its step 0, and its task. All ranks. settings: see `train_toy`."""
    settings = SETTINGS | settings
    toy = make_toy(settings.pop("task", "toy"), **settings.pop("toy", {}))
    config = replace(CONFIG, **settings)
    set_process(config)
    Path(output).mkdir(parents=True, exist_ok=True)
    run = prepare_run(
        spec_of(toy, Path(output), config=config), state=TrainState(), stop=StopFlag()
    )
    try:
        yield run, toy
    finally:
        run.writer.wait()
        run.data.close()
        run.log.close()


def whole_tensors(run):
    """Return {"<kind>/<name>": whole tensor} of a run, as `tensors_of`. All ranks."""
    kinds = {
        "weights": named_state(run.module),
        "optimizer": state_by_name(run.optimizer, run.module),
        "ema": run.ema.tensors,
    }
    return {
        f"{kind}/{name}": whole(tensor.detach()).clone()
        for kind, tensors in kinds.items()
        for name, tensor in tensors.items()
    }


def tensors_of(output, step=STEPS):
    """Return {"<kind>/<name>": whole tensor} of a checkpoint."""
    folder = Path(output) / "checkpoints" / f"step_{step:08d}"
    tensors = {}
    for kind in KINDS:
        if kind == "weights" and not is_sharded(folder):
            stored = load_file(folder / "model.safetensors")
        else:
            with StoredTensors(folder, kind) as reader:
                stored = dict(reader)
        tensors |= {f"{kind}/{name}": tensor for name, tensor in stored.items()}
    return tensors


def differing(first, second):
    """Return the names whose bits differ between two dicts of tensors."""
    assert first.keys() == second.keys(), first.keys() ^ second.keys()
    return [name for name, tensor in first.items() if not same_bits(tensor, second[name])]


def largest_difference(first, second, kind="weights"):
    """Return the largest difference of a value of this kind, absolute."""
    assert first.keys() == second.keys(), first.keys() ^ second.keys()
    names = [name for name in first if name.startswith(f"{kind}/") and first[name].numel()]
    return max(float((first[name] - second[name]).abs().max()) for name in names)


def files_of(output, *folders):
    """Return {name: bytes} of the files in these folders of a run."""
    paths = [path for name in folders for path in sorted((Path(output) / name).rglob("*"))]
    files = {str(p.relative_to(output)): p.read_bytes() for p in paths if p.is_file()}
    assert files, f"{output} has no files in {folders}"
    return files
