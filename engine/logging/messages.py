"""Lines for people: the summary before the first step of a run, and the one after its last."""

from __future__ import annotations

import contextlib
import json
import math
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from visionloop.engine.checkpoints.folder import step_folder_name
from visionloop.engine.config.train_config import TrainConfig
from visionloop.engine.data.micro_batches import Halving, MicroBatchPlan
from visionloop.engine.distributed import World
from visionloop.engine.evaluation.record import FOLDER
from visionloop.engine.logging.console import class_table
from visionloop.engine.system.shared_memory import low_shared_memory
from visionloop.engine.task import Task
from visionloop.engine.types import JsonObject

if TYPE_CHECKING:
    from visionloop.engine.run import Run, RunSpec

NOTABLE_SHARE = 0.1  # of the time: a part that takes less is not named
PART_NAMES = {
    "compute": "training steps",
    "data_wait": "waiting for data",
    "logging": "logging",
    "evaluation": "evaluation",
    "checkpointing": "saving checkpoints",
    "other": "start-up",
}


def log_startup_summary(spec: RunSpec, state: JsonObject | None) -> None:
    """Print what a run is about to do, and how its noise differs from one process. Main rank only.

    state: the state.json that the run resumes from, or None.
    """
    task, config, world = spec.task, spec.config, spec.world
    if not world.is_main:
        return
    info = partial(print, flush=True)
    plan = MicroBatchPlan(config.batch_size, world.size, config.micro_batch, spec.halvings)
    ranges = plan.ranges(state["step"] if state else 0)
    sizes = sorted({stop - start for start, stop in ranges})
    sizes_text = " or ".join(map(str, sizes))
    info(
        f"{task.name}: {len(spec.train_set)} training and {len(spec.val_set)} validation samples, "
        f"{config.steps} steps of {config.batch_size} ({world.size} process(es) x "
        f"{len(ranges) // world.size} micro-batch(es) of {sizes_text}), {world.device.type}, "
        f"{config.precision}, {config.threads} thread(s), {config.workers} worker(s)"
        f"{sharding_text(config.shard, world)}"
    )
    if task.config.from_scratch and not state:
        info(f"{task.config.model}: from random weights")
    for line in task.notes():
        info(line)
    if config.workers and (warning := low_shared_memory()):
        info(f"warning: {warning}")
    if unused := unused_gpus(world):
        info(unused)
    if state:
        source = f"a branch of {spec.branch.run}, " if spec.branch else "resuming "
        info(f"{source}after step {state['step']}")
        last_ranges = plan.ranges(max(0, state["step"] - 1))
        if [list(bounds) for bounds in last_ranges] != state["micro_batches"]:
            info(
                "the model's noise differs from here on: the global batch is split into other "
                "micro-batches than before; samples, order and normalization are the same"
            )
    if plan.size(config.steps) < config.micro_batch:
        info(
            f"micro-batches of at most {plan.size(config.steps)}, not of --micro-batch "
            f"{config.micro_batch}, from step {spec.halvings[0].step + 1} on, where memory ran "
            f"out; without {spec.output / 'micro_batches.json'} the run would try again"
        )
    elif world.size > 1 and sizes != [config.micro_batch]:
        info(
            f"micro-batches of {sizes_text}, not of --micro-batch {config.micro_batch}: the "
            "model's noise depends on the number of processes; samples, order and normalization "
            "do not"
        )


def sharding_text(shard: str, world: World) -> str:
    """Return the end of the summary of a run with --shard: who holds what; else nothing."""
    if shard == "none":
        return ""
    shards = world.size if shard == "full" else world.local_size
    if shards == 1:
        copies = "" if world.size == 1 else " on each node"
        return f", --shard {shard} with one process{copies}: nothing is divided"
    copies = f" on each of {world.size // shards} nodes" if shards < world.size else ""
    return f", sharded over {shards} processes{copies}"


def nondeterministic_line(operations: Sequence[str]) -> str:
    """Return the line of a run with --deterministic that has such operations on CUDA."""
    return (
        f"--deterministic: CUDA has no deterministic backward of {', '.join(operations)} "
        f"(torch {torch.__version__}): bytes may differ there from run to run; samples, order and "
        "schedule do not"
    )


def halving_line(halving: Halving, *, is_first: bool) -> str:
    """Return the line that tells of a halving; the first one says what changes with it."""
    line = (
        f"step {halving.step + 1}: out of memory with micro-batches of {halving.before}; this "
        f"step and those after it use {halving.micro_batch}"
    )
    if is_first:
        line += (
            ". The model's noise and BatchNorm statistics follow the micro-batches; samples, "
            "order and normalization do not change"
        )
    return line


def unused_gpus(world: World) -> str | None:
    """Return a line for a single process that sees several GPUs and uses one; else None."""
    number = torch.cuda.device_count() if world.device.type == "cuda" and world.size == 1 else 1
    if number < 2:
        return None
    command = f"torchrun --nproc-per-node {number} --shutdown-timeout 120 {shlex.join(sys.argv)}"
    return f"{number} GPUs visible, 1 used; on all of them: {command}"


def final_summary(run: Run, task: Task) -> Iterator[str]:
    """Yield the lines at the end of a run: best scores, commands for best/, the slowest part."""
    yield from classes_of_best(run, task)
    best = shlex.quote(str(run.output / "best"))
    command = launcher_command(task.name)
    yield best_line(run)
    if halvings := run.data.plan.halvings:
        yield memory_line(halvings)
    yield f"predict:  {command} predict --model {best} --input IMAGES --output PREDICTIONS"
    if not run.config.overfit:
        yield f"evaluate: {command} evaluate --model {best}{evaluation_options(run, task)}"
    shares = {part: row["share"] for part, row in run.clock.time_breakdown().items()}
    yield time_line(shares)


def best_line(run: Run) -> str:
    """Return the line of the score that picked best/, with its 95 % interval where there is one."""
    spec, best = run.best_metric, run.state.best
    assert best is not None, "a finished run has evaluated"
    if best["score"] is None or not math.isfinite(best["score"]):
        return (
            f"finished: no evaluation gave a number for {spec.label}: check the validation data "
            f"and the losses; the weights of step {best['step']} are in {run.output / 'best'}"
        )
    score = spec.show(best["score"])
    interval = interval_of(run.output, best["step"], spec.key)
    if interval:
        score_range = f" (95 %: {spec.show(interval[0])} to {spec.show(interval[1])})"
    else:
        score_range = ""
    return (
        f"finished: best {spec.label} {score} at step {best['step']} of {run.state.step}"
        f"{score_range}, in {run.output / 'best'}"
    )


def classes_of_best(run: Run, task: Task) -> list[str]:
    """Return the lines of the table of classes of best/, from the record of its evaluation."""
    assert run.state.best is not None, "a finished run has evaluated"
    step = run.state.best["step"]
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        classes = read_record(run.output, step)["classes"]
        keys = [column["key"] for column in classes["columns"]]
        per_class = {
            row["name"]: {
                key: math.nan if value is None else value
                for key, value in zip(keys, row["values"], strict=True)
            }
            for row in classes["rows"]
        }
        table = class_table(task.metrics[0], per_class)
        return ["", f"classes at step {step}, whose weights are in best/:", *table[1:]]
    return []


def memory_line(halvings: Sequence[Halving]) -> str:
    """Return the line of the summary about the steps that did not fit into memory."""
    parts = (f"{halving.micro_batch} from step {halving.step + 1} on" for halving in halvings)
    return (
        f"memory:   micro-batches of {halvings[0].before} did not fit, so they had at most "
        f"{', then '.join(parts)}"
    )


def interval_of(output: Path, step: int, key: str) -> tuple[float, float] | None:
    """Read the (low, high) of a score from the record of its evaluation; None without one."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        low, high = read_record(output, step)["intervals"][key]
        return float(low), float(high)
    return None


def read_record(output: Path, step: int) -> JsonObject:
    """Read the record of an evaluation. Raises OSError or ValueError without one."""
    record: JsonObject = json.loads(
        (output / FOLDER / step_folder_name(step) / "record.json").read_text()
    )
    return record


def launcher_command(task_name: str) -> str:
    """Return the command of the task's launcher, as this process was called where it is one."""
    called = Path(sys.argv[0])
    if called.name == f"{task_name}.py":
        return f"python {shlex.quote(str(called))}"
    installed = f"visionloop-{task_name.replace('_', '-')}"
    return installed if called.name == installed else f"python bin/{task_name}.py"


def evaluation_options(run: Run, task: Task) -> str:
    """Return the options of `evaluate` that score the same images in the same way."""
    words = ["--data", str(task.config.data)]
    if task.config.val_split:
        words += ["--val-split", f"{task.config.val_split:g}"]
    if run.config.eval_batch_size != TrainConfig.eval_batch_size:
        words += ["--batch-size", str(run.config.eval_batch_size)]
    return " " + shlex.join(words)


def time_line(shares: Mapping[str, float]) -> str:
    """Return the line of the part that took most time besides the training steps.

    Where no other part takes a tenth, the line is about the training steps.
    """
    part = slowest_part(shares)
    besides = "" if part == "compute" else " besides the training steps"
    return f"time: the largest part{besides} was {PART_NAMES[part]}, {100 * shares[part]:.0f} %"


def slowest_part(shares: Mapping[str, float]) -> str:
    """Return the part that took most besides the steps, where it took a tenth; else the steps.

    shares: {part: share of the time}, see `Clock.time_breakdown`.
    """
    others = {part: share for part, share in shares.items() if part != "compute"}
    part = max(others, key=lambda name: others[name])
    return part if others[part] >= NOTABLE_SHARE else "compute"
