"""What the engine is measured against: the shortest correct loop of the same model, and the turns that the two take."""

import contextlib
import copy
import multiprocessing
import os
import signal
import time

import torch

from visionloop.bin.benchmarks.turns import synchronised
from visionloop.engine.optim import build_optimizer
from visionloop.engine.precision import build_precision
from visionloop.engine.seeding import seed_noise


class InMemory:
    """A dataset whose samples are made once, so that both loops get their batches from memory."""

    def __init__(self, dataset, at_most=512):
        self.dataset = dataset
        self.samples = [dataset[index] for index in range(min(len(dataset), at_most))]
        self.name = dataset.name

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return dict(self.samples[index])


class BareLoop:
    """The shortest correct loop: what one would write for this model alone, without any of the engine."""

    def __init__(self, task, run, config):
        self.task, self.config, self.device = task, config, run.world.device
        self.precision = build_precision(config.precision, self.device, tf32=config.tf32)
        self.count = task.count  # before it is watched
        self.module = copy.deepcopy(run.module)
        self.optimizer = build_optimizer(task.parameter_groups(self.module), self.module, config)
        self.parameters = dict(self.module.named_parameters())

    def step(self, micro_batches, rates):
        """One step. rates: {name of a parameter group: learning rate}."""
        for group in self.optimizer.param_groups:
            group["lr"] = rates[group["name"]]
        count, scaler = self.count(micro_batches), self.precision.scaler
        for host_batch in micro_batches:
            batch = host_batch.to(self.device)
            seed_noise(self.config.seed, batch.step, batch.offset)  # for equal weights at the end
            with self.precision.autocast():
                loss = self.task.loss(self.module, batch, count)["loss"]
            scaler.scale(loss).backward()
        scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.config.clip_grad)
        scaler.step(self.optimizer)
        scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def difference(self, module):
        """Of our weights from those of `module`: the largest, relative to the norm of its tensor; 0 where all bits are equal."""
        pairs = [
            (parameter.detach(), self.parameters[name].detach())
            for name, parameter in module.named_parameters()
        ]
        return max(
            0.0 if torch.equal(a, b) else float((a - b).norm() / a.norm().clamp(min=1e-30))
            for a, b in pairs
        )


class TakeTurns:
    """After each block of engine steps the bare loop takes the same batches. Hangs on the socket, so `fit` is run as it is.

    Turns change in the middle between two multiples of `block`: what is written at such a step is
    in the engine's turn, and a thread that writes has half a block of the engine's steps to slow
    down. What it needs beyond that the engine waits for.
    """

    def __init__(self, task, run, bare, block, others):
        """others: processes that were there before the loader's workers."""
        self.run, self.bare, self.block, self.others = run, bare, block, others
        self.blocks, self.pending = (
            [],
            [],
        )  # blocks: (steps, seconds of the engine, of them waiting for batches, seconds of the bare loop)
        self._count, self._before_step, self._began = task.count, task.before_step, None
        task.count, task.before_step = self.count, self.before_step

    def before_step(self, module, step, steps):
        if self.pending and step % self.block == self.block // 2:
            self.hand_over()
        if self._began is None:
            self._waited, self._began = self._wait_seconds(), synchronised(self.bare.device)
        self._before_step(module, step, steps)

    def count(self, micro_batches):
        rates = {group["name"]: group["lr"] for group in self.run.optimizer.param_groups}
        self.pending.append((micro_batches, rates))
        return self._count(micro_batches)

    def hand_over(self):
        """The engine's turn is over, the bare loop takes its own."""
        self.run.writer.wait()
        engine = synchronised(self.bare.device) - self._began
        wait = self._wait_seconds() - self._waited
        with paused(self.others):
            began = time.perf_counter()
            for micro_batches, rates in self.pending:
                self.bare.step(micro_batches, rates)
            bare = synchronised(self.bare.device) - began
        self.blocks.append((len(self.pending), engine, wait, bare))
        self.pending, self._began = [], None

    def whole_blocks(self, together=1):
        """Rows of `blocks`, each the sum of so many, without the first two, in which memory is allocated, and without a rest."""
        rows = self.blocks[2:]
        groups = (rows[i : i + together] for i in range(0, len(rows), together))
        sums = [tuple(map(sum, zip(*group, strict=True))) for group in groups]
        return [row for row in sums if row[0] == together * self.block]

    def _wait_seconds(self):
        return self.run.clock.seconds["data_wait"]


@contextlib.contextmanager
def paused(others):
    """The loader's workers rest until the end of the block: they neither take a core from what is timed, nor work ahead meanwhile."""
    workers = [
        process.pid for process in multiprocessing.active_children() if process not in others
    ]
    send(workers, signal.SIGSTOP)
    try:
        yield
    finally:
        send(workers, signal.SIGCONT)


def send(pids, number):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # it had no more to do
            os.kill(pid, number)
