"""Putting a run together. The order of wrapping is written here and nowhere else."""

import os
import warnings

import torch
from torch.nn.parallel import DistributedDataParallel as DDP

from visionloop.engine.checkpoints.writer import CheckpointWriter
from visionloop.engine.config.suggest import did_you_mean
from visionloop.engine.data.loader import TrainingData
from visionloop.engine.data.sampler import split_batch
from visionloop.engine.ema import ExponentialMovingAverage, ema_decay_for
from visionloop.engine.errors import UserError
from visionloop.engine.grad_checkpointing import apply_grad_checkpointing
from visionloop.engine.logging.run_log import RunLog
from visionloop.engine.nonfinite import NonFiniteSteps
from visionloop.engine.optim import batch_norms, build_optimizer
from visionloop.engine.precision import build_precision
from visionloop.engine.run import Run
from visionloop.engine.seeding import hashed
from visionloop.engine.system.memory import keep_freed_memory
from visionloop.engine.system.profiling import Clock, StepProfiler, parse_span


def prepare_run(
    task, config, world, train, val, *, output, settings, start_step, evaluated_at, stop
):
    """A Run with fresh weights whose data and log begin after `start_step` and `evaluated_at` (a resume loads the rest). All ranks."""
    clock = Clock(start_step)
    module = build_module(task, config, world)  # 1 weights, 2 recompute activations
    model = task.compile(module) if config.compile else module  # 3 compile
    if world.size > 1:
        model = wrap_ddp(model, world)  # 4 DDP
    optimizer = build_optimizer(task.parameter_groups(module), module, config)  # 5 optimizer
    check_micro_batch_size(
        task, module, split_batch(config.batch_size, world.size, config.micro_batch)
    )
    ema = (
        ExponentialMovingAverage(module, ema_decay_for(config.ema_decay, config.steps))
        if config.ema
        else None
    )
    best_metric, profiled = (
        pick_metric(task, config.best_metric),
        parse_span(config.profile) if config.profile else None,
    )
    # last, when nothing can be wrong any more: these two start threads and processes
    data = TrainingData(task, train, config, world, start_step)
    log = RunLog(
        output,
        world,
        task,
        steps=config.steps,
        start_step=start_step,
        evaluated_at=evaluated_at,
        epoch_of=data.order.epoch_of,
    )
    return Run(
        config=config,
        output=output,
        world=world,
        module=module,
        model=model,
        optimizer=optimizer,
        precision=build_precision(config.precision, world.device, tf32=config.tf32),
        ema=ema,
        trained_parameters=[
            parameter for parameter in module.parameters() if parameter.requires_grad
        ],
        trained_buffers=[
            buffer for layer in batch_norms(module) if layer.training for buffer in layer.buffers()
        ],
        data=data,
        val=val,
        log=log,
        writer=CheckpointWriter(config.save_async),
        clock=clock,
        stop=stop,
        nonfinite_steps=NonFiniteSteps(world.device),
        profiler=StepProfiler(profiled, output / "profile", world),
        best_metric=best_metric,
        settings=settings,
        start_step=start_step,
        reload_at=task.reload_best_at(config.steps),
    )


def build_module(task, config, world):
    """The model on its device, as it is saved, evaluated and averaged."""
    torch.manual_seed(hashed(config.seed))  # the same new weights on every rank
    module = task.build_model().to(world.device)  # 1 weights
    if config.sync_bn and world.size > 1:
        if world.device.type != "cuda":
            raise UserError(
                f"--sync-bn: works on CUDA only, this run is on {world.device.type}",
                field="sync_bn",
            )
        module = torch.nn.SyncBatchNorm.convert_sync_batchnorm(module)
    freeze(task, module, config)
    if config.grad_checkpointing:
        apply_grad_checkpointing(task.grad_checkpointing_blocks(module))  # 2 recompute activations
    return module


def check_micro_batch_size(task, module, pieces):
    """UserError when a micro-batch is too small for what the model or the mixing of images needs."""
    needed, smallest = (
        task.min_micro_batch_size(module),
        min(stop - start for start, stop in pieces),
    )
    if smallest < needed:
        raise UserError(
            f"--micro-batch: micro-batches of {smallest}, this training needs {needed} at once",
            field="micro_batch",
        )


def wrap_ddp(model, world):
    """DDP whose buckets never change, and whose buffers are sent when they are read (see distributed.broadcast_buffers).

    By default DDP lays its buckets out anew after the first backward, so the first step after a
    resume would add up the ranks' gradients in another order than the same step of a straight run:
    other bytes on three and more processes (measured). With find_unused_parameters the first layout
    stays; it costs a walk over the graph and one small collective.
    """
    warnings.filterwarnings("ignore", message="find_unused_parameters=True was specified")
    device_ids = [world.device.index] if world.device.type == "cuda" else None
    return DDP(
        model,
        device_ids=device_ids,
        forward_sync_buffers=False,
        gradient_as_bucket_view=True,
        find_unused_parameters=True,
    )


def freeze(task, module, config):
    """`--freeze backbone`: no gradients there, and no BatchNorm statistics or dropout either."""
    if task.config.freeze != "backbone":
        return
    backbone = task.backbone(module)
    if backbone is None:
        raise UserError("--freeze backbone: this model has no separate backbone", field="freeze")
    backbone.requires_grad_(False).eval()


def pick_metric(task, key):
    """The MetricSpec that picks best/."""
    specs = {spec.key: spec for spec in task.metrics}
    if key is not None and key not in specs:
        raise UserError(
            f"--best-metric: expected one of {', '.join(specs)}, got {key!r}{did_you_mean(key, specs)}",
            field="best_metric",
        )
    return specs[key] if key else task.metrics[0]


def set_process(config):
    """Threads and freed memory of this process and, on CUDA, deterministic algorithms."""
    keep_freed_memory()
    torch.set_num_threads(config.threads)
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False
