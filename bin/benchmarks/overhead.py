"""What the engine costs over a bare loop of the same model and batches."""

import io
import tempfile
import time
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from visionloop.bin.benchmarks.environment import append_line, describe_environment
from visionloop.bin.benchmarks.options import (
    batch_size_option,
    data_option,
    image_size_option,
    json_option,
    model_option,
    task_option,
    threads_option,
)
from visionloop.bin.benchmarks.ratios import ratio_with_interval
from visionloop.bin.benchmarks.tables import print_figures
from visionloop.bin.benchmarks.tasks import build_steady, sample_data


@click.command(help="The engine against a bare loop: same model, same batches, in turn in one process; equal weights at the end.")
@task_option
@data_option
@model_option
@image_size_option
@batch_size_option(32)
@click.option("--micro-batch", type=int, help="accumulate: most samples at once")
@click.option("--precision", type=click.Choice(["fp32", "bf16", "fp16"]), default="bf16", show_default=True)
@click.option("--steps", type=int, default=200, show_default=True)
@click.option("--block", type=int, default=10, show_default=True, help="steps before the two take turns")
@threads_option
@json_option
def overhead(task_name, data, json_file, **options):
    with tempfile.TemporaryDirectory() as scratch:
        figures = measure(task_name, data or sample_data(task_name, Path(scratch)), Path(scratch) / "run", **options)
    figures |= describe_environment(options)
    print_figures(figures)
    append_line(json_file, benchmark="overhead", task=task_name, **figures)


def measure(task_name, data, output, *, model, image_size, batch_size, micro_batch, precision, steps, block, threads):
    """{figure: value}. The engine's loop runs as ever (logging each 50 steps, no evaluation, no checkpoint, no average)."""
    import torch

    from visionloop.engine.config import build
    from visionloop.engine.loop import fit
    from visionloop.engine.prepare import prepare_run, set_threads
    from visionloop.engine.settings import TrainConfig
    from visionloop.engine.stop import StopFlag

    flags = dict(data=data, model=model, image_size=image_size, batch_size=batch_size, micro_batch=micro_batch)
    flags |= dict(precision=precision, steps=steps, threads=threads, device="cpu")
    world, task, train_set, val, settings, facts = build_steady(task_name, flags)
    config = replace(build(TrainConfig, settings), log_every=50)
    set_threads(config)
    output.mkdir(parents=True)
    run = prepare_run(
        task, config, world, InMemory(train_set), val, output=output, settings=facts, start_step=0, evaluated_at=0, stop=StopFlag()
    )
    torch.manual_seed(0)
    bare = BareLoop(task, run, config)
    watch = TakeTurns(task, run, bare, block)
    run.evaluated_at = run.saved_at = steps  # neither an evaluation nor a checkpoint at the end
    with redirect_stdout(io.StringIO()):
        fit(run, task)
    watch.finish()
    run.data.close()
    run.log.close()
    for name, parameter in run.module.named_parameters():
        assert torch.equal(parameter, bare.parameters[name]), f"{name} differs: the two loops did not compute the same"
    return watch.figures(batch_size)


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
        import copy

        from visionloop.engine.optim import build_optimizer

        self.task, self.config, self.device, self.precision = task, config, run.world.device, run.precision
        self.count = task.count  # before it is watched
        self.module = copy.deepcopy(run.module)
        self.optimizer = build_optimizer(task.parameter_groups(self.module), self.module, config)
        self.parameters = dict(self.module.named_parameters())

    def step(self, micro_batches, rates):
        import torch

        from visionloop.engine.order import seed_noise

        for group in self.optimizer.param_groups:
            group["lr"] = rates[group["name"]]
        count = self.count(micro_batches)
        for host_batch in micro_batches:
            batch = host_batch.to(self.device)
            seed_noise(self.config.seed, batch.step, batch.offset)  # for equal weights at the end
            with self.precision.autocast():
                loss = self.task.loss(self.module, batch, count)["loss"]
            loss.backward()
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.config.clip_grad)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


class TakeTurns:
    """After each block of engine steps the bare loop takes the same batches. Hangs on the socket, so `fit` is run as it is."""

    def __init__(self, task, run, bare, block):
        self.run, self.bare, self.block = run, bare, block
        self.engine_seconds, self.wait_seconds, self.bare_seconds, self.pending = [], [], [], []
        self._count, self._began, self._waited = task.count, None, 0.0
        self._before_step = task.before_step
        task.count, task.before_step = self.count, self.before_step

    def before_step(self, module, step, steps):
        self._close_step()
        if len(self.pending) == self.block:
            self._replay()
        self._before_step(module, step, steps)
        self._waited, self._began = self.run.clock.seconds["data_wait"], time.perf_counter()

    def count(self, micro_batches):
        rates = {group["name"]: group["lr"] for group in self.run.optimizer.param_groups}
        self.pending.append((micro_batches, rates))
        return self._count(micro_batches)

    def finish(self):
        self._close_step()
        self._replay()

    def _close_step(self):
        if self._began is not None:
            self.engine_seconds.append(time.perf_counter() - self._began)
            self.wait_seconds.append(self.run.clock.seconds["data_wait"] - self._waited)
        self._began = None

    def _replay(self):
        for micro_batches, rates in self.pending:
            began = time.perf_counter()
            self.bare.step(micro_batches, rates)
            self.bare_seconds.append(time.perf_counter() - began)
        self.pending = []

    def figures(self, batch_size):
        warm = 2 * self.block  # left out: first steps allocate
        engine, wait, bare = (np.array(values[warm:]) for values in (self.engine_seconds, self.wait_seconds, self.bare_seconds))
        whole = len(engine) // self.block * self.block
        # ratio block by block: both blocks of a pair saw the same moment of a noisy machine
        own, other = ((values[:whole]).reshape(-1, self.block) for values in (engine - wait, bare))
        ratio, (low, high) = ratio_with_interval(np.median(own, axis=1), np.median(other, axis=1))
        return {
            "bare_step_ms": round(1000 * float(np.median(bare)), 3),
            "engine_step_ms": round(1000 * float(np.median(engine - wait)), 3),
            "batch_wait_ms": round(1000 * float(np.median(wait)), 3),
            "overhead_percent": round(100 * (ratio - 1), 2),
            "overhead_95_percent": [round(100 * (low - 1), 2), round(100 * (high - 1), 2)],
            "bare_samples_per_second": round(batch_size / float(np.median(bare)), 1),
            "weights": "equal",
        }
