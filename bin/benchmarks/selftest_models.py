"""Checks of `selftest` on models: one gradient on one process and on two, and what the named models take. See selftest_numbers.py."""

import gc
import json
import statistics
from dataclasses import replace
from functools import partial

import torch

from visionloop.bin.benchmarks.processes import peak_resident
from visionloop.bin.benchmarks.same_step import SameStep
from visionloop.bin.benchmarks.selftest_trial import NotPossible, quiet_task
from visionloop.engine.testing.short_runs import (
    CONFIG,
    assert_same_step,
    first_step,
    on_ranks,
    score,
)

# the four that are named first in the catalogues, and the samples of a step to begin with; half as
# many where memory is short
NAMED = {
    "classification": ("vit-base", 32),
    "detection": ("dfine-xlarge", 8),
    "segmentation": ("eomt-large", 8),
    "super_resolution": ("classical", 8),
}
TINY = ("tiny", 4)  # in their place, without CUDA
LEAST = 2  # samples that a trained BatchNorm needs
TIMED = 10  # steps


def ranks(trial):
    """The first step and an evaluation on one process, and on two with half of the samples each."""
    trial.need_devices(2)
    make_task = partial(quiet_task, trial.task_name, str(trial.data()))
    config = replace(CONFIG, device=trial.device, tf32=False)
    alone = step_and_scores(make_task, config)
    figures = {"gradient_difference": 0.0}
    for rank, other in enumerate(on_ranks(2, step_and_scores, make_task, config)):
        gradients = [torch.tensor(found["step"]["gradient"]) for found in (alone, other)]
        difference = float((gradients[0] - gradients[1]).norm() / gradients[0].norm())
        figures["gradient_difference"] = max(difference, figures["gradient_difference"])
        assert_same_step(alone["step"], other["step"], f"process {rank} of 2 against 1")
        told = f"scores of two processes are {other['scores']}, of one {alone['scores']}"
        assert json.dumps(other["scores"]) == json.dumps(alone["scores"]), told
    return figures


def step_and_scores(make_task, config):
    return {"step": first_step(make_task, config), "scores": score(make_task, config.device)}


def named_model(trial):
    """A step again and again on one batch, nothing recomputed and then all blocks that can be."""
    model, batch_size = NAMED[trial.task_name] if trial.device == "cuda" else TINY
    while batch_size >= LEAST:
        try:
            return {"model": model} | measure(trial, model, batch_size)
        except torch.OutOfMemoryError:
            batch_size //= 2
        gc.collect()
        torch.accelerator.empty_cache()
    raise NotPossible(f"{model} needs more memory for {LEAST} samples than there is")


def measure(trial, model, batch_size):
    """{figure: value}: medians of step times, and the peak of the allocator on CUDA, of the whole process on the CPU."""
    flags = dict(
        data=str(trial.data()),
        model=model,
        batch_size=batch_size,
        precision="bf16",
        threads=1,
        device=trial.device,
    )
    step = SameStep(trial.task_name, flags, trial.folder / f"of-{batch_size}")
    plain, *_, every = step.cases
    figures = {"batch_size": batch_size, "weights_mib": round(step.weights_mib(), 1)}
    for case, name in ((plain, ""), (every, "recomputed_")):
        seconds = [step.take(case) for _ in range(3 + TIMED)][3:]
        step_ms = 1000 * statistics.median(seconds)
        figures |= {
            f"{name}step_ms": round(step_ms, 1),
            f"{name}samples_per_second": round(1000 * batch_size / step_ms, 1),
        }
        peak = step.allocated_mib(case)[0] if step.device.type == "cuda" else peak_resident()
        figures[f"{name}peak_gib"] = round(peak / 1024, 2)
    return figures
