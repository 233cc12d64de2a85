"""The toy task on a device whose memory runs out in a step, and runs of it that may be killed."""

import json
import multiprocessing
import os
import resource
import signal
import time
import traceback
from pathlib import Path

import torch
from toy_task import ToyTask

from visionloop.engine import out_of_memory
from visionloop.engine.errors import RunAgain, UserError
from visionloop.engine.system.memory import virtual_bytes
from visionloop.engine.testing.short_runs import free_port
from visionloop.engine.train import train

SETTINGS = dict(
    steps=8,
    batch_size=12,
    micro_batch=12,
    lr=1e-2,
    threads=1,
    workers=0,
    device="cpu",
    precision="fp32",
    log_every=1,
    eval_every=4,
    save_every=2,
    keep=9,
    process_timeout=60,
)


class FailsInBackward(torch.autograd.Function):
    """The identity, whose backward finds no memory."""

    @staticmethod
    def forward(ctx, value):
        return value.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


class ScarceToy(ToyTask):
    """Runs out of memory in step `at_step` with more than `room` samples, on one rank.

    place: "forward" (its end), "backward", "update" of the weights or "evaluation".
    """

    at_step, room, place, rank = 3, 6, "forward", 0

    def loss(self, model, batch, normalizers):
        losses = super().loss(model, batch, normalizers)
        if self.is_full(batch.step, len(batch)):
            if self.place == "forward":
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            if self.place == "backward":
                losses["loss"] = FailsInBackward.apply(losses["loss"])
        return losses

    def is_full(self, step, samples):
        own_rank = int(os.environ.get("RANK", 0)) == self.rank
        return own_rank and step == self.at_step and samples > self.room

    def predict(self, model, batch):
        if self.place == "evaluation" and len(batch) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().predict(model, batch)


class SummingToy(ScarceToy):
    """Sums a count over ranks in its loss, as detection does."""

    def loss(self, model, batch, normalizers):
        losses = super().loss(model, batch, normalizers)
        normalizers.sum_over_ranks([float(len(batch)), 1.0])
        return losses


class GrowingToy(ToyTask):
    """Takes 12 MiB a sample from step 3 on, in a process that may then take 120 MiB more."""

    def before_step(self, module, step, steps):
        super().before_step(module, step, steps)
        if step == 3 and resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
            limit = virtual_bytes() + 120 * 2**20
            resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))

    def loss(self, model, batch, normalizers):
        losses = super().loss(model, batch, normalizers)
        if batch.step < 3:
            return losses
        activations = torch.ones(len(batch), 2**20, requires_grad=True)
        return losses | {"loss": losses["loss"] + 0 * activations.exp().sum()}


def start(output, *, task=ScarceToy, scarcity=None, dies_after_record=False, **settings):
    """Train in this process; return [exit code, text of the error or state of the run]."""
    for name, value in (scarcity or {}).items():
        setattr(task, name, value)
    if dies_after_record:
        write = out_of_memory.write_halvings

        def write_and_die(*arguments):
            write(*arguments)
            os.kill(os.getpid(), signal.SIGKILL)

        out_of_memory.write_halvings = write_and_die
    try:
        return [0, train(task, output=str(output), **SETTINGS | settings).state]
    except UserError as error:
        return [75 if isinstance(error, RunAgain) else 2, f"{error.code}: {error}"]


def start_processes(number, output, *, context="fork", **arguments):
    """Call `start` in joined processes; return its results by rank, None for a killed one.

    context: start method of the processes.
    """
    port, start_method = free_port(), multiprocessing.get_context(context)
    folder = Path(output).with_suffix(f".results.{time.monotonic_ns()}")
    folder.mkdir(parents=True)
    processes = [
        start_method.Process(target=_process, args=(rank, number, port, folder, output, arguments))
        for rank in range(number)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(100)
        process.kill()
    files = [folder / f"{rank}.json" for rank in range(number)]
    return [json.loads(file.read_text()) if file.exists() else None for file in files]


def _process(rank, number, port, folder, output, arguments):
    torch.set_num_threads(1)
    if number > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(number)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    try:
        result = start(output, **arguments)
    except BaseException:
        result = [1, traceback.format_exc()]
    (folder / f"{rank}.json").write_text(json.dumps(result))
    os._exit(0)
