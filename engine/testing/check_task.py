"""`check_task`: the invariants of every task, checked with one call.

Our tasks are checked with it, and so can be a task of yours. Noise must be off in the task that is
checked (drop path, mixup, denoising), and BatchNorm frozen: then micro-batches of any size must add
up to the same gradient.
"""

import json
import sys
import tempfile
from dataclasses import replace
from math import isclose
from pathlib import Path

import torch

from visionloop.engine.batch import Normalizers
from visionloop.engine.config.train_config import TrainConfig
from visionloop.engine.ema import named_state
from visionloop.engine.testing.short_runs import (
    CONFIG,
    STEPS,
    MakeTask,
    assert_same_step,
    first_batch,
    first_step,
    logged,
    on_ranks,
    runs_differ,
    score,
    seeded_model,
    train_steps,
)

# a forked process need not import everything again, and the checks are on the CPU; elsewhere a fork
# is not safe with system libraries
START_METHOD = "fork" if sys.platform == "linux" else "spawn"


def check_task(make_task: MakeTask, *, folder: str | Path | None = None) -> list[str]:
    """Check the invariants of a task.

    Args:
        make_task: makes the task with its noise off; at module level and without arguments, since
            other processes import it.
        folder: where the runs are written (default: a temporary folder).

    Returns:
        The names of the invariants.

    Raises:
        AssertionError: names the invariant that the task breaks.
    """
    checked = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(folder or scratch)
        for check in (
            batches,
            resume,
            accumulation,
            ranks,
            grad_checkpointing,
            sharding,
            empty_targets,
            overfit,
            export,
        ):
            check(make_task, folder / check.__name__)
            checked.append(check.__name__)
    return checked


def batches(make_task: MakeTask, folder: Path) -> None:
    """Check that a batch holds uint8 images and the ids of its samples."""
    task = make_task()
    batch = first_batch(task)
    assert batch["pixel_values"].dtype == torch.uint8, (
        "batches: pixel_values must be uint8 when they leave the loader"
    )
    assert batch["sample_ids"].dtype == torch.int64 and len(batch) == 8, (
        "batches: sample_ids must be int64 [B]"
    )
    assert set(task.count_normalizers([batch])) == set(task.normalizer_names), (
        "batches: count_normalizers must return the names in normalizer_names"
    )


def resume(make_task: MakeTask, folder: Path) -> None:
    """Check that a run stopped after any step and resumed ends with the bytes of a straight run."""
    train_steps(make_task(), folder / "straight")
    for stop_after in range(1, STEPS):
        output = folder / f"stopped_{stop_after}"
        train_steps(make_task(), output, stop_after=stop_after)
        train_steps(make_task(), output)
        difference = runs_differ(folder / "straight", output)
        assert not difference, f"resume: after a stop at step {stop_after} {difference} differs"


def accumulation(make_task: MakeTask, folder: Path) -> None:
    """Check that 4 micro-batches of 2 give the step of one batch of 8."""
    whole = first_step(make_task, CONFIG)
    split = first_step(make_task, replace(CONFIG, micro_batch=2))
    assert_same_step(whole, split, "accumulation: 4 x 2 against 1 x 8")


def ranks(make_task: MakeTask, folder: Path) -> None:
    """Check that 2 processes give the step of 1, and that 1, 2 and 3 give one evaluation."""
    whole, scores = first_step(make_task, CONFIG), score(make_task)
    for step in on_ranks(2, first_step, make_task, CONFIG, context=START_METHOD):
        assert_same_step(whole, step, "ranks: 2 processes against 1")
    for number in (2, 3):
        for other in on_ranks(number, score, make_task, context=START_METHOD):
            assert json.dumps(other) == json.dumps(scores), (
                f"ranks: evaluation on {number} processes gives {other}, on one {scores}"
            )


def grad_checkpointing(make_task: MakeTask, folder: Path) -> None:
    """Check that recomputed activations give the same gradient."""
    task = make_task()
    if task.grad_checkpointing_blocks(task.build_model()):
        plain = first_step(make_task, CONFIG)
        recomputed = first_step(make_task, replace(CONFIG, grad_checkpointing=True))
        assert_same_step(plain, recomputed, "grad_checkpointing: on against off")


def sharding(make_task: MakeTask, folder: Path) -> None:
    """Check that `--shard` changes nothing but where the numbers are.

    Sharded on 1 process, a run has the weights, moments, EMA and scores of a plain one, bit for
    bit; sharded on 2, the losses of 2 plain processes.
    """
    for processes in (1, 2):
        plain, sharded = folder / f"plain_{processes}", folder / f"sharded_{processes}"
        for output, config in ((plain, CONFIG), (sharded, replace(CONFIG, shard="full"))):
            on_ranks(processes, train_short, make_task, output, config, context=START_METHOD)
        for one, other in zip(logged(plain), logged(sharded), strict=True):
            for name in one:
                if name.startswith("loss"):
                    assert isclose(one[name], other[name], rel_tol=1e-5, abs_tol=1e-7), (
                        f"sharding: {name} is {other[name]} in {other}, expected {one[name]}"
                    )
    plain, sharded = folder / "plain_1", folder / "sharded_1"
    difference = runs_differ(plain, sharded, ("ema", "optimizer"))
    assert not difference, f"sharding: {difference} differs"
    task = make_task()
    modules = [seeded_model(task, seed) for seed in (1, 2)]
    for module, output in zip(modules, (plain, sharded), strict=True):
        task.load(module, output / "best")
    expected, read = (named_state(module) for module in modules)
    for name, tensor in expected.items():
        assert torch.equal(tensor, read[name]), f"sharding: {name} of best/ differs"


def train_short(make_task: MakeTask, output: Path, config: TrainConfig) -> None:
    """Train a short run. All ranks."""
    train_steps(make_task(), output, config=config)


def empty_targets(make_task: MakeTask, folder: Path) -> None:
    """Check that a batch without targets has a finite loss and a gradient for every parameter."""
    task = make_task()
    batch = task.without_targets(first_batch(task))
    if batch is None:
        return
    module = seeded_model(task)
    task.before_step(module, 0, STEPS)
    normalizers = Normalizers(dict.fromkeys(task.normalizer_names, 1.0))
    task.loss(module, batch, normalizers)["loss"].backward()
    for name, parameter in module.named_parameters():
        assert not parameter.requires_grad or parameter.grad is not None, (
            f"empty_targets: {name} has no gradient"
        )
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), (
            f"empty_targets: the gradient of {name} is not finite"
        )


def overfit(make_task: MakeTask, folder: Path) -> None:
    """Check that 60 steps on one batch lower its loss."""
    task = make_task()
    module, batch = seeded_model(task), first_batch(task)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    counts = task.count_normalizers([batch])
    normalizers = Normalizers({name: max(1.0, number) for name, number in counts.items()})
    losses = []
    for _ in range(60):
        task.before_step(module, 0, STEPS)
        loss = task.loss(module, batch, normalizers)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < task.overfit_loss_share * losses[0], (
        f"overfit: the loss of one batch went from {losses[0]:.3g} to {losses[-1]:.3g} only"
    )


def export(make_task: MakeTask, folder: Path) -> None:
    """Check that `load` reads back what `save` writes, bit for bit."""
    task = make_task()
    module, other = seeded_model(task), seeded_model(task, seed=1)
    folder.mkdir(parents=True)
    task.save(module, module.state_dict(), folder)
    task.load(other, folder)
    for name, tensor in named_state(module).items():
        assert torch.equal(tensor, named_state(other)[name]), (
            f"export: {name} is not the same after save and load"
        )
