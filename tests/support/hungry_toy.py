"""A toy task that needs 4 MiB a sample, and two processes of which one has little memory."""

import json
import os
import resource
from pathlib import Path

import torch
import torch.utils.tensorboard
from toy_task import ToyTask

from visionloop.engine.system.memory import THREAD_STACKS, virtual_bytes
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


class PoorToy(HungryToy):
    """On the second rank, a process that may take 150 MiB more than it has, threads aside."""

    def build_model(self):
        if os.environ["RANK"] == "1":
            resource.setrlimit(
                resource.RLIMIT_AS,
                (virtual_bytes() + THREAD_STACKS + 150 * MIB, resource.RLIM_INFINITY),
            )
        return super().build_model()


def micro_batch_of_poor_ranks(output):
    """The stored setting of a run of two processes.

    New processes: they have no freed memory of earlier work to take it from.
    """
    torch.optim.AdamW(
        [torch.zeros(1, requires_grad=True)], fused=True
    )  # imports more than it is here about
    train(PoorToy, output=output, micro_batch="auto", **SETTINGS)
    return json.loads((Path(output) / "settings.json").read_text())["settings"]["micro_batch"]
