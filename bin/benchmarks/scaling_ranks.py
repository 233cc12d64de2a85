"""What one of several processes does for the benchmark of scaling, and what the seconds of all of them say.

The engine's steps on a batch in memory, in turn: with the step's collectives and without them, and
one process alone while the others wait for it, all within seconds of each other.
"""

import statistics
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from visionloop.bin.benchmarks.ratios import ratio_with_interval
from visionloop.bin.benchmarks.same_step import SameStep
from visionloop.engine import distributed
from visionloop.engine.distributed import agree, barrier, gather_objects
from visionloop.engine.errors import UserError
from visionloop.engine.step import train_step

WARM_STEPS = 3


class RankStep:
    """The step of this rank, with and without its collectives. flags: see SameStep; batch_size: of the step, over all ranks."""

    def __init__(self, task_name, flags, output, batch_size):
        self.same = SameStep(task_name, {**flags, "batch_size": batch_size}, output)
        self.run, self.task = self.same.run, self.same.task
        # the module below DDP: gradients stay where they are
        self.bare = replace(self.run, model=self.run.module)

    def joined(self):
        """Seconds of one step as the loop takes it: the counts' collective, and DDP's of the gradients."""
        began, run, task = self.same.clock(), self.run, self.task
        agreed = agree(run.world, task.count(self.same.micro_batches), task.count_names, stop=False)
        train_step(run, task, self.same.micro_batches, agreed.count, 0)
        return self.same.clock() - began

    def alone(self):
        """Seconds of the same step of this rank without any collective."""
        with without_collectives():
            began = self.same.clock()
            self.task.count(self.same.micro_batches)
            train_step(self.bare, self.task, self.same.micro_batches, self.same.count, 0)
            return self.same.clock() - began

    def agree_seconds(self):
        """Of the counts' collective, when all ranks come to it at once."""
        barrier(self.run.world)
        began = self.same.clock()
        agree(
            self.run.world,
            dict.fromkeys(self.task.count_names, 1),
            self.task.count_names,
            stop=False,
        )
        return self.same.clock() - began

    def all_reduce_seconds(self, buffer):
        """Of summing a tensor over the ranks, when all come to it at once."""
        barrier(self.run.world)
        began = self.same.clock()
        if self.run.world.group is not None:
            dist.all_reduce(buffer)
        return self.same.clock() - began


@contextmanager
def without_collectives():
    """A loss that sums over the ranks (D-FINE's) sums over this one alone."""
    joined, distributed._joined = distributed._joined, None
    try:
        yield
    finally:
        distributed._joined = joined


def batch_sizes(processes, batch_size):
    """{mode: samples of a step over all processes}. batch_size: of one process alone."""
    return (
        {"one": batch_size}
        if processes == 1
        else {"strong": batch_size, "weak": processes * batch_size}
    )


def measure_rank(task_name, flags, sizes, steps, repeats):
    """{"error": line}, or {"turns": [of `take_turn`], "gradient_mib", "agree_ms", "all_reduce_ms"}. All ranks. sizes: of `batch_sizes`."""
    try:
        with tempfile.TemporaryDirectory() as scratch:
            modes = {
                mode: RankStep(task_name, flags, Path(scratch) / mode, size)
                for mode, size in sizes.items()
            }
    except UserError as error:  # every rank has the same reason
        return {"error": str(error)}
    for step in modes.values():
        for _ in range(WARM_STEPS):
            step.joined()
            step.alone()
    turns = [take_turn(modes, steps) for _ in range(repeats)]
    trained = step.run.trained_parameters
    buffer = torch.zeros(
        sum(parameter.numel() for parameter in trained), device=step.run.world.device
    )
    return {
        "turns": turns,
        "gradient_mib": round(buffer.nbytes / 2**20, 2),
        "agree_ms": median_ms(step.agree_seconds() for _ in range(5 * repeats)),
        "all_reduce_ms": median_ms(step.all_reduce_seconds(buffer) for _ in range(5 * repeats)),
    }


def median_ms(seconds):
    return round(1000 * statistics.median(seconds), 3)


def take_turn(modes, steps):
    """{mode: {"joined", "alone": seconds [W, steps]}, "first": seconds [steps] of the first rank while the others rest}. All ranks.

    modes: {mode: RankStep}, of which the last has the batch of one process.
    """
    found = {}
    for mode, step in modes.items():
        world, own = step.run.world, {"joined": [], "alone": []}
        for _ in range(steps):
            barrier(
                world
            )  # both begin together on all ranks, and stand side by side on a noisy machine
            own["joined"].append(step.joined())
            barrier(world)
            own["alone"].append(step.alone())
        every = gather_objects(world, own)
        found[mode] = {kind: [rank[kind] for rank in every] for kind in own}
    found["first"] = [step.alone() for _ in range(steps)] if world.is_main else []
    barrier(world)
    return found


def figures_of(turns, mode, sizes):
    """{figure: value} of one mode. turns: what `take_turn` gave the first rank, each time; sizes: of `batch_sizes`.

    A joined step ends when the slowest rank has computed and the collectives are over. So what it
    takes beyond the slowest rank's own step is the cost of collectives, DDP's bookkeeping included,
    and what the slowest takes beyond the mean of the ranks is waiting.
    """
    joined, alone = (
        np.array([turn[mode][kind] for turn in turns]) for kind in ("joined", "alone")
    )  # [turns, W, steps]
    first = np.array([turn["first"] for turn in turns]).mean(1)
    step, slowest, mean = joined.mean((1, 2)), alone.max(1).mean(1), alone.mean((1, 2))
    processes = joined.shape[1]
    own = sizes[mode] / processes  # samples of a step of one rank
    rate_of_one = sizes["strong" if processes > 1 else "one"] / first
    efficiency, interval = ratio_with_interval(own / step, rate_of_one)
    computing, _ = ratio_with_interval(own / mean, rate_of_one)
    computed, computed_interval = ratio_with_interval(slowest, step)
    waiting, _ = ratio_with_interval(slowest - mean, step)
    return {
        "step_ms": round(1000 * float(np.median(step)), 3),
        "samples_per_second": round(sizes[mode] / float(np.median(step)), 1),
        "efficiency_percent": percent(efficiency),
        "efficiency_95_percent": [percent(bound) for bound in interval],
        "efficiency_without_collectives_percent": percent(computing),
        "collectives_percent": percent(1 - computed),
        "collectives_95_percent": [percent(1 - bound) for bound in reversed(computed_interval)],
        "waiting_percent": percent(waiting),
        "one_process_samples_per_second": round(float(np.median(rate_of_one)), 1),
    }


def percent(share):
    return round(100 * share, 1)
