"""A toy task that needs 4 MiB a sample, and two processes of which one has little memory."""

import json
import os
import resource
from pathlib import Path

import torch
import torch.utils.tensorboard
from toy_task import ToyConfig, ToyTask

from visionloop.engine.autotune.micro_batch import MicroBatchProbe, find_micro_batch
from visionloop.engine.config.train_config import TrainConfig
from visionloop.engine.system.memory import THREAD_STACKS, virtual_bytes
from visionloop.engine.testing.short_runs import spec_of
from visionloop.engine.train import train

MIB = 2**20
SETTINGS = dict(
    batch_size=24,
    steps=2,
    threads=1,
    workers=0,
    device="cpu",
    precision="fp32",
    eval_every=0,
    save_every=0,
)


class HungryToy(ToyTask):
    """Keeps 4 MiB of each sample from the forward to the backward pass."""

    def loss(self, model, batch, normalizers):
        activations = torch.ones(len(batch), MIB, requires_grad=True)
        losses = super().loss(model, batch, normalizers)
        return losses | {"loss": losses["loss"] + 0 * activations.exp().sum()}


class WaitingToy(HungryToy):
    """Has a loss that is a collective, as the one of detection."""

    def loss(self, model, batch, normalizers):
        normalizers.sum_over_ranks([float(len(batch))])
        return super().loss(model, batch, normalizers)


class PoorToy(WaitingToy):
    """On the second rank, a process that may take `room` MiB more than it has, threads aside."""

    room = 150

    def build_model(self):
        if os.environ["RANK"] == "1":
            resource.setrlimit(
                resource.RLIMIT_AS,
                (virtual_bytes() + THREAD_STACKS + self.room * MIB, resource.RLIM_INFINITY),
            )
        return super().build_model()


def import_all_of_torch():
    """Build an optimizer: it imports more than the memory that is measured here."""
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)], fused=True)


def micro_batch_of_poor_ranks(output):
    """The stored setting of a run of two processes.

    New processes: they have no freed memory of earlier work to take it from.
    """
    import_all_of_torch()
    train(PoorToy, output=output, micro_batch="auto", **SETTINGS)
    return json.loads((Path(output) / "settings.json").read_text())["settings"]["micro_batch"]


def tries_of_poor_ranks(output):
    """{"tried": sizes in order, "found": what the search returns} of this rank of two."""
    import_all_of_torch()
    tried = []
    run_step = MicroBatchProbe.run_step

    def watched(probe, step, size):
        if size not in tried:
            tried.append(size)
        run_step(probe, step, size)

    MicroBatchProbe.run_step = watched
    config = TrainConfig(**SETTINGS | {"batch_size": 96}, micro_batch=48)
    task = PoorToy(ToyConfig())
    task.room = 350
    found = find_micro_batch(spec_of(task, Path(output), config=config))
    return {"tried": tried, "found": list(found)}
