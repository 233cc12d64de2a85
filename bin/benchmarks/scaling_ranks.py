"""One rank of the `scaling` benchmark, and the figures made of the seconds of all ranks.

The engine's steps on a batch in memory, interleaved: with the step's collectives, without them, and
one process alone while the others wait, all within seconds of each other.
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from visionloop.bin.benchmarks.communication import traffic_of
from visionloop.bin.benchmarks.measurement import MIB, median_ms, ratio_with_interval
from visionloop.bin.benchmarks.repeated_step import RepeatedStep
from visionloop.bin.benchmarks.results import Row
from visionloop.bin.benchmarks.step_timing import WARM_STEPS
from visionloop.engine.batch import Normalizers
from visionloop.engine.config.train_config import Shard
from visionloop.engine.distributed import agree, barrier, gather_objects
from visionloop.engine.errors import UserError
from visionloop.engine.sharding.memory_estimate import model_sizes
from visionloop.engine.step import train_step


class RankStep:
    """The step of this rank, with and without its collectives.

    batch_size: over all ranks; shard: value of --shard. A sharded module cannot do without
    collectives: there the same step without them is that of another, whole one.
    """

    def __init__(
        self, task_name: str, flags: Row, output: Path, batch_size: int, shard: Shard
    ) -> None:
        flags = flags | {"batch_size": batch_size}
        whole = RepeatedStep(task_name, flags, output / "whole")
        self.step = whole
        if shard != "none":
            self.step = RepeatedStep(task_name, flags | {"shard": shard}, output / shard)
        self.run, self.task, self.world = self.step.run, self.step.task, self.step.run.world
        self.batches, self.clock = self.step.micro_batches, self.step.clock
        # the module inside DDP: gradients stay on this rank
        local_world = replace(self.world, size=1, group=None)
        self.local_run = replace(whole.run, model=whole.run.module, world=local_world)
        self.local_task = whole.task
        self.sizes = model_sizes(whole.run.module, whole.task.sharding_units(whole.run.module))

    def synchronized(self) -> float:
        """Take one step as the loop does, with the collectives of counts and gradients; seconds."""
        began = self.clock()
        counts = self.task.count_normalizers(self.batches)
        agreed = agree(self.world, counts, self.task.normalizer_names, stop=False)
        train_step(self.run, self.task, self.batches, agreed.normalizers, 0)
        return self.clock() - began

    def alone(self) -> float:
        """Take the same step of this rank without any collective and return its seconds."""
        # a loss that sums over ranks (D-FINE's) sums over this one alone
        normalizers = Normalizers(self.step.normalizers)
        began = self.clock()
        self.local_task.count_normalizers(self.batches)
        train_step(self.local_run, self.local_task, self.batches, normalizers, 0)
        return self.clock() - began


def batch_sizes(processes: int, batch_size: int) -> dict[str, int]:
    """Return {mode: samples of a step over all processes}. batch_size: of one process alone."""
    if processes == 1:
        return {"one": batch_size}
    return {"strong": batch_size, "weak": processes * batch_size}


def measure_rank(
    task_name: str,
    flags: Row,
    sizes: Mapping[str, int],
    steps: int,
    repeats: int,
    shard: Shard,
    per_node: int,
) -> Row:
    """Return {"error": line} or {"rounds": of measure_round, "traffic"}. All ranks.

    sizes: of batch_sizes; per_node: processes of a node, which --shard node reads; traffic: of a
    step, {"messages", "sent_mib"}.
    """
    os.environ["LOCAL_WORLD_SIZE"] = str(per_node)
    modes = {}
    try:
        with tempfile.TemporaryDirectory() as scratch:
            for mode, size in sizes.items():
                modes[mode] = RankStep(task_name, flags, Path(scratch) / mode, size, shard)
    except UserError as error:  # the same on every rank
        return {"error": str(error)}
    for step in modes.values():
        for _ in range(WARM_STEPS):
            step.synchronized()
            step.alone()
    traffic = traffic_of(step.sizes, shard, ranks=step.world.size, per_node=per_node)
    return {
        "rounds": [measure_round(modes, steps) for _ in range(repeats)],
        "traffic": {"messages": traffic.messages, "sent_mib": round(traffic.sent_bytes / MIB, 2)},
    }


def measure_round(modes: Mapping[str, RankStep], steps: int) -> Row:
    """Measure one round of {mode: step}, the last of which has the batch of one process. All ranks.

    Returns {mode: {"synchronized", "alone": seconds [W, steps]}, "first": seconds [steps] of the
    first rank while the others wait}.
    """
    result: Row = {}
    for mode, step in modes.items():
        own: dict[str, list[float]] = {"synchronized": [], "alone": []}
        for _ in range(steps):
            barrier(step.world)  # both begin on all ranks at once, within seconds of each other
            own["synchronized"].append(step.synchronized())
            barrier(step.world)
            own["alone"].append(step.alone())
        ranks = gather_objects(step.world, own)
        result[mode] = {kind: [rank[kind] for rank in ranks] for kind in own}
    result["first"] = [step.alone() for _ in range(steps)] if step.world.is_main else []
    barrier(step.world)
    return result


def scaling_figures(rounds: Sequence[Row], mode: str, sizes: Mapping[str, int]) -> Row:
    """Return {figure: value} of one mode. rounds: of measure_round; sizes: of batch_sizes.

    A synchronized step ends when the slowest rank has computed and the collectives are over. So
    what it takes beyond the slowest rank's own step is the cost of collectives, DDP's bookkeeping
    included; what the slowest takes beyond the mean of the ranks is waiting.
    """
    synchronized = np.array([row[mode]["synchronized"] for row in rounds])  # [rounds, W, steps]
    alone = np.array([row[mode]["alone"] for row in rounds])
    first = np.array([row["first"] for row in rounds]).mean(1)
    step, slowest, mean = synchronized.mean((1, 2)), alone.max(1).mean(1), alone.mean((1, 2))
    processes = synchronized.shape[1]
    samples = sizes[mode] / processes  # of a step of one rank
    single_rate = sizes["strong" if processes > 1 else "one"] / first
    ratios = {
        "efficiency": ratio_with_interval(samples / step, single_rate),
        "efficiency_without_collectives": ratio_with_interval(samples / mean, single_rate),
        "collectives": ratio_with_interval(step - slowest, step),
        "waiting": ratio_with_interval(slowest - mean, step),
    }
    figures: Row = {"step_ms": median_ms(step.tolist(), 3)}
    figures["samples_per_second"] = round(sizes[mode] / float(np.median(step)), 1)
    figures["one_process_samples_per_second"] = round(float(np.median(single_rate)), 1)
    for name, (ratio, interval) in ratios.items():
        figures[f"{name}_percent"] = round(100 * ratio, 1)
        figures[f"{name}_95_percent"] = [round(100 * bound, 1) for bound in interval]
    return figures
