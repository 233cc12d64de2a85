"""What a run says of itself before its first step."""

import shlex
import sys
from functools import partial

import torch

from visionloop.engine.order import cut_pieces


def announce(task, config, world, train_set, val, state):
    """The start line, and what of the noise is not the same as on one process. Main rank only. state: of the checkpoint, or None."""
    if not world.is_main:
        return
    say = partial(print, flush=True)
    pieces = cut_pieces(config.batch_size, world.size, config.micro_batch)
    sizes = sorted({stop - start for start, stop in pieces})
    say(
        f"{task.name}: {len(train_set)} training and {len(val)} validation samples, {config.steps} steps of {config.batch_size} "
        f"({world.size} process(es) x {len(pieces) // world.size} micro-batch(es) of {' or '.join(map(str, sizes))}), "
        f"{world.device.type}, {config.precision}, {config.threads} thread(s), {config.workers} worker(s)"
    )
    if config.deterministic and task.undeterministic:
        say(
            f"--deterministic: CUDA has no deterministic backward of {', '.join(task.undeterministic)} (torch {torch.__version__}): "
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
            say("noise differs: other pieces of the global batch than before; samples, order and normalisation are the same")
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
