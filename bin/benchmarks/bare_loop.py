"""The shortest correct training loop of a model, and its interleaving with the engine's loop."""

import contextlib
import copy
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Sequence
from multiprocessing.process import BaseProcess

import torch
from torch.utils.data import Dataset

from visionloop.bin.benchmarks.measurement import synchronized_time
from visionloop.bin.benchmarks.overhead import TimedBlock
from visionloop.bin.benchmarks.results import Row, Value
from visionloop.engine.batch import Batch, Normalizers
from visionloop.engine.optim import build_optimizer
from visionloop.engine.precision import build_precision
from visionloop.engine.run import Run
from visionloop.engine.seeding import seed_noise
from visionloop.engine.task import Task

Processes = Sequence[BaseProcess]


class CachedSamples(Dataset[Row]):
    """A dataset whose samples are made once and then come from memory."""

    def __init__(self, dataset: Value, limit: int = 512) -> None:
        self.samples = [dataset[index] for index in range(min(len(dataset), limit))]
        self.name, self.fingerprint = dataset.name, dataset.fingerprint

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Row:
        return dict(self.samples[index])


class BareLoop:
    """The loop one would write for this model alone, without any of the engine; on a copy of it."""

    def __init__(self, task: Task, run: Run) -> None:
        self.task, self.config, self.device = task, run.config, run.world.device
        self.precision = build_precision(self.config.precision, self.device, tf32=self.config.tf32)
        self.count_normalizers = task.count_normalizers  # before InterleavedLoops wraps it
        self.module = copy.deepcopy(run.module)
        groups = task.parameter_groups(self.module)
        self.optimizer = build_optimizer(groups, self.module, self.config)

    def step(self, micro_batches: Sequence[Batch], lrs: dict[str, float]) -> None:
        """Take one step. lrs: {name of a parameter group: learning rate}."""
        for group in self.optimizer.param_groups:
            group["lr"] = lrs[group["name"]]
        normalizers = Normalizers(self.count_normalizers(micro_batches))
        scaler = self.precision.scaler
        for cpu_batch in micro_batches:
            batch = cpu_batch.to(self.device)
            seed_noise(self.config.seed, batch.step, batch.offset)  # for equal weights at the end
            with self.precision.autocast():
                loss = self.task.loss(self.module, batch, normalizers)["loss"]
            scaler.scale(loss).backward()
        scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.config.clip_grad)
        scaler.step(self.optimizer)
        scaler.update()
        self.optimizer.zero_grad(set_to_none=True)


class InterleavedLoops:
    """Run the bare loop on the same batches after each block of the engine's steps.

    It wraps `task.count_normalizers` and `task.before_step`, so `fit` is run unchanged. The loops
    alternate in the middle between two multiples of `block`, so the time of writes at such a step
    counts as the engine's: a writing thread overlaps half a block of the engine's steps, and the
    engine waits for the rest.

    earlier_processes: child processes that are not data workers of this run.
    """

    def __init__(
        self, task: Value, run: Run, bare: BareLoop, block: int, earlier_processes: Processes
    ) -> None:
        self.run, self.bare, self.block = run, bare, block
        self.earlier_processes = earlier_processes
        self.blocks: list[TimedBlock] = []
        self.pending: list[tuple[Sequence[Batch], dict[str, float]]] = []
        self._count, self._before_step = task.count_normalizers, task.before_step
        self._began = self._waited = 0.0  # 0: not yet
        task.count_normalizers, task.before_step = self.count_normalizers, self.before_step

    def before_step(self, module: torch.nn.Module, step: int, steps: int) -> None:
        if self.pending and step % self.block == self.block // 2:
            self.run_bare_block()
        if not self._began:
            self._waited = self.run.clock.seconds["data_wait"]
            self._began = synchronized_time(self.bare.device)
        self._before_step(module, step, steps)

    def count_normalizers(self, micro_batches: Sequence[Batch]) -> dict[str, float]:
        lrs = {group["name"]: group["lr"] for group in self.run.optimizer.param_groups}
        self.pending.append((micro_batches, lrs))
        return self._count(micro_batches)

    def run_bare_block(self) -> None:
        """End the engine's block and take the same steps with the bare loop."""
        self.run.writer.wait()
        engine = synchronized_time(self.bare.device) - self._began
        waiting = self.run.clock.seconds["data_wait"] - self._waited
        with paused_workers(self.earlier_processes):
            began = time.perf_counter()
            for micro_batches, lrs in self.pending:
                self.bare.step(micro_batches, lrs)
            bare = synchronized_time(self.bare.device) - began
        self.blocks.append(TimedBlock(len(self.pending), engine, waiting, bare))
        self.pending, self._began = [], 0.0

    def whole_blocks(self, together: int = 1) -> list[TimedBlock]:
        """Return sums over `together` successive blocks.

        The first two blocks, which warm up, and an incomplete sum at the end are left out.
        """
        timed = self.blocks[2:]
        groups = [timed[i : i + together] for i in range(0, len(timed), together)]
        sums = [TimedBlock(*map(sum, zip(*group, strict=True))) for group in groups]
        return [row for row in sums if row.steps == together * self.block]


@contextlib.contextmanager
def paused_workers(earlier_processes: Processes) -> Iterator[None]:
    """Suspend the data workers within the block: they neither take a core nor work ahead."""
    children = multiprocessing.active_children()
    workers = [child.pid for child in children if child.pid and child not in earlier_processes]

    def send(signal_number: int) -> None:
        for pid in workers:
            with contextlib.suppress(ProcessLookupError):  # the worker has ended
                os.kill(pid, signal_number)

    send(signal.SIGSTOP)
    try:
        yield
    finally:
        send(signal.SIGCONT)
