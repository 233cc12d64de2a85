"""The last lines of a finished run: how good it is, how to use it, and what took the time."""

import contextlib
import json
import math
import os
import shlex
import sys
from dataclasses import fields
from functools import partial
from pathlib import Path

import torch

from visionloop.engine.checkpoints.folder import step_folder_name
from visionloop.engine.config.options import Seconds
from visionloop.engine.data.sampler import split_batch
from visionloop.engine.evaluation.record import FOLDER
from visionloop.engine.system.cores import share_cores
from visionloop.engine.system.profiling import peak_gib

WORTH_TELLING = 0.1  # share of the time
NAMES = {
    "data_wait": "waiting for data", "logging": "logging", "evaluation": "evaluation", "checkpointing": "saving checkpoints",
    "other": "start-up", "compute": "the steps themselves",
}  # fmt: skip


def summary(run, task, step):
    """Lines for people: the best score, the commands that use it, the slowest part of the run and the flag most worth changing."""
    best = shlex.quote(str(run.output / "best"))
    command = program(task.name)
    yield best_line(run, step)
    yield f"predict:  {command} predict --model {best} --input IMAGES --output ANSWERS"
    if not run.config.overfit:
        yield f"evaluate: {command} evaluate --model {best}{evaluation_options(run, task)}"
    yield time_line(run, task, step)


def best_line(run, step):
    """The score that picked best/, with its 95 % interval where there is one."""
    spec, best = run.best_metric, run.best
    score = "none" if best["score"] is None else spec.show(best["score"])
    low_high = interval_of(run.output, best["step"], spec.key)
    shown = f" (95 %: {spec.show(low_high[0])} to {spec.show(low_high[1])})" if low_high else ""
    return f"finished: best {spec.label} {score} at step {best['step']} of {step}{shown}, in {run.output / 'best'}"


def interval_of(output, step, key):
    """(low, high) of a score, from the record of its evaluation; None where there is none."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        low, high = json.loads(
            (output / FOLDER / step_folder_name(step) / "record.json").read_text()
        )["intervals"][key]
        return float(low), float(high)
    return None


def program(task_name):
    """How this program was called, as far as it has the task's other commands too."""
    called = Path(sys.argv[0])
    if called.name == f"{task_name}.py":
        return f"python {shlex.quote(str(called))}"
    installed = f"visionloop-{task_name.replace('_', '-')}"
    return installed if called.name == installed else f"python bin/{task_name}.py"


def evaluation_options(run, task):
    """What `evaluate` has to be told to score the same images in the same way."""
    words = ["--data", str(task.config.data)]
    if task.config.val_split:
        words += ["--val-split", f"{task.config.val_split:g}"]
    if run.config.eval_batch_size != 32:
        words += ["--batch-size", str(run.config.eval_batch_size)]
    return " " + shlex.join(words)


def time_line(run, task, step):
    """What took most of the time besides the steps, or the steps themselves, and the flag that would change it most."""
    shares = {part: row["share"] for part, row in run.clock.time_breakdown().items()}
    part = slowest(shares)
    flag = worth_changing(
        part, shares, run.config, kept(task), machine(run), steps=step - run.start_step
    )
    went = "most" if part == "compute" else "besides the steps most"
    return f"time: {went} went into {NAMES[part]}, {100 * shares[part]:.0f} %" + (
        f"; worth changing: {flag}" if flag else ""
    )


def slowest(shares):
    """The part that took most besides the steps, where that is worth telling; else the steps."""
    others = {part: share for part, share in shares.items() if part != "compute"}
    part = max(others, key=others.get)
    return part if others[part] >= WORTH_TELLING else "compute"


def kept(task):
    """Where decoded images are kept, by --cache; None for a task that has no such setting."""
    return task.config.cache if "cache" in {item.name for item in fields(task.config)} else None


def machine(run):
    """{"cores" of this process, "bf16": the device computes in it quickly, "free": share of the device's memory never used}."""
    workers, threads = share_cores(run.world.device.type)
    found = {"cores": max(workers + threads, 1), "bf16": False, "free": None}
    if hasattr(os, "sched_getaffinity"):
        found["cores"] = max(
            1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        )
    if run.world.device.type == "cuda":
        total = torch.cuda.get_device_properties(run.world.device).total_memory / 2**30
        found |= {
            "bf16": torch.cuda.is_bf16_supported(including_emulation=False),
            "free": 1 - peak_gib(run.world.device) / total,
        }
    return found


def worth_changing(part, shares, config, cache, found, *, steps):
    """The one flag that shortens this part most, with why; None where no flag would. found: of `machine`; steps: of this start."""
    if part == "data_wait":
        return for_data(config, cache, found)
    if part == "evaluation":
        return for_evaluation(shares, config, steps)
    if part == "checkpointing":
        return for_checkpoints(shares, config, steps)
    if part == "logging":
        return f"--log-every {10 * config.log_every} (now {config.log_every})"
    return for_steps(config, found) if part == "compute" else None


def for_data(config, cache, found):
    """Workers where cores are idle; else images kept decoded, where that is switched off."""
    idle = found["cores"] - config.threads - config.workers
    if idle > 0:
        return f"--workers {config.workers + idle} ({idle} of {found['cores']} cores are not used by this run)"
    return "--cache ram (images are decoded anew in every epoch)" if cache == "none" else None


def rarer(every, share, steps):
    """How many steps should lie between what takes this share of the time, for a tenth; None where it happens once or twice anyway."""
    times = share * (1 - WORTH_TELLING) / (WORTH_TELLING * (1 - share))
    wanted = math.ceil(every * times)
    return wanted if every and every < steps / 2 and wanted > every else None


def for_a_tenth(wanted, steps):
    return ", for a tenth of the time" if wanted <= steps else ""


def for_evaluation(shares, config, steps):
    wanted = rarer(config.eval_every, shares["evaluation"], steps)
    return (
        wanted
        and f"--eval-every {min(wanted, steps)} (now {config.eval_every}{for_a_tenth(wanted, steps)})"
    )


def for_checkpoints(shares, config, steps):
    """A thread for writing; else fewer of them: those of new best scores come with evaluations."""
    if not config.save_async:
        return "--save-async (the steps go on while a checkpoint is written)"
    timed = isinstance(config.save_every, Seconds)
    if not timed and config.eval_every and config.eval_every < (config.save_every or steps):
        wanted = rarer(config.eval_every, shares["checkpointing"], steps)
        return wanted and f"--eval-every {min(wanted, steps)} (each better score is saved)"
    if timed:
        return f"--save-every {Seconds(4 * config.save_every)} (now {config.save_every})"
    wanted = rarer(config.save_every, shares["checkpointing"], steps)
    return (
        wanted
        and f"--save-every {min(wanted, steps)} (now {config.save_every}{for_a_tenth(wanted, steps)})"
    )


def for_steps(config, found):
    """Lower precision where the device is quick in it, no recomputing where there is memory, idle cores."""
    if found["bf16"] and config.precision == "fp32":
        return "--precision bf16 (this GPU multiplies it several times as fast as fp32)"
    if found["free"] is not None and found["free"] > 0.5:
        if config.grad_checkpointing:
            return f"--no-grad-checkpointing ({100 * found['free']:.0f} % of the GPU's memory was never used)"
        if config.micro_batch < config.batch_size:
            return f"--micro-batch auto ({100 * found['free']:.0f} % of the GPU's memory was never used)"
    idle = found["cores"] - config.threads - config.workers
    if config.device == "cpu" and idle > 0:
        return f"--threads {config.threads + idle} ({idle} of {found['cores']} cores are not used by this run)"
    return None


# What a run says of itself before its first step.


def log_startup(task, config, world, train_set, val, state):
    """The start line, and what of the noise is not the same as on one process. Main rank only. state: of the checkpoint, or None."""
    if not world.is_main:
        return
    say = partial(print, flush=True)
    pieces = split_batch(config.batch_size, world.size, config.micro_batch)
    sizes = sorted({stop - start for start, stop in pieces})
    say(
        f"{task.name}: {len(train_set)} training and {len(val)} validation samples, {config.steps} steps of {config.batch_size} "
        f"({world.size} process(es) x {len(pieces) // world.size} micro-batch(es) of {' or '.join(map(str, sizes))}), "
        f"{world.device.type}, {config.precision}, {config.threads} thread(s), {config.workers} worker(s)"
    )
    if config.deterministic and task.nondeterministic_ops:
        say(
            f"--deterministic: CUDA has no deterministic backward of {', '.join(task.nondeterministic_ops)} (torch {torch.__version__}): "
            "bytes may differ there from run to run; samples, order and schedule do not"
        )
    if task.config.from_scratch and not state:
        say(f"{task.config.model}: from random weights")
    for line in task.notes():
        say(line)
    if unused := unused_gpus(world):
        say(unused)
    if state:
        say(f"continuing after step {state['step']}")
        if [list(piece) for piece in pieces] != state["pieces"]:
            say(
                "noise differs: other pieces of the global batch than before; samples, order and normalisation are the same"
            )
    if world.size > 1 and sizes != [config.micro_batch]:
        say(
            f"micro-batches of {' or '.join(map(str, sizes))}, not of --micro-batch {config.micro_batch}: the model's noise depends on the "
            "number of processes; samples, order and normalisation do not"
        )


def unused_gpus(world):
    """The line for a single process that sees several GPUs, which uses one of them; None otherwise."""
    number = torch.cuda.device_count() if world.device.type == "cuda" and world.size == 1 else 1
    if number < 2:
        return None
    command = f"torchrun --nproc-per-node {number} --shutdown-timeout 120 {shlex.join(sys.argv)}"
    return f"{number} GPUs visible, 1 used; on all of them: {command}"
