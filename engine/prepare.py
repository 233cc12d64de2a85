"""Putting a run together. The order of wrapping is written here and nowhere else."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel as DDP

from visionloop.engine.budget import Budget
from visionloop.engine.checkpoints.writer import CheckpointWriter, host_buffers
from visionloop.engine.config.options import flag_of
from visionloop.engine.config.suggest import did_you_mean
from visionloop.engine.config.train_config import TrainConfig
from visionloop.engine.data.loader import TrainingData
from visionloop.engine.data.micro_batches import MicroBatchPlan
from visionloop.engine.data.sampler import split_batch
from visionloop.engine.determinism import permit_nondeterministic, use_deterministic_algorithms
from visionloop.engine.distributed import World
from visionloop.engine.ema import ExponentialMovingAverage, ema_decay_for
from visionloop.engine.errors import UserError
from visionloop.engine.grad_checkpointing import apply_grad_checkpointing
from visionloop.engine.logging.run_log import RunLog
from visionloop.engine.metric import MetricSpec
from visionloop.engine.nonfinite import NonFiniteSteps
from visionloop.engine.optim import batch_norms, build_optimizer
from visionloop.engine.precision import build_precision
from visionloop.engine.run import Run, RunSpec, TrainState
from visionloop.engine.seeding import hashed
from visionloop.engine.system.memory import keep_freed_memory
from visionloop.engine.system.profiling import Clock, StepProfiler, parse_span
from visionloop.engine.task import Task

if TYPE_CHECKING:
    from visionloop.engine.sharding.fsdp import Sharding


def prepare_run(
    spec: RunSpec, *, state: TrainState, stop: Callable[[], bool], budget: Budget | None = None
) -> Run:
    """Build all parts of a run, with fresh weights. All ranks.

    Args:
        spec: the inputs of the run.
        state: where data and log begin; `resume_from` loads the weights of that step.
        stop: asked at each step whether to stop.
        budget: of a run with --budget, on the main rank.
    """
    task, config, world, output = spec.task, spec.config, spec.world, spec.output
    clock = Clock(state.step)
    module = build_module(task, config, world)  # 1 weights, 2 recompute activations
    model, sharding = module, None
    if config.shard != "none":
        sharding = shard(task, module, config, world)  # 3 compile each block, 4 FSDP2
    else:
        model = task.compile(module) if config.compile else module  # 3 compile
        if world.size > 1:
            model = wrap_ddp(model, world)  # 4 DDP
    optimizer = build_optimizer(task.parameter_groups(module), module, config)  # 5 optimizer
    micro_batch_ranges = split_batch(config.batch_size, world.size, config.micro_batch)
    check_micro_batch_size(task, module, micro_batch_ranges)
    plan = MicroBatchPlan(
        config.batch_size,
        world.size,
        config.micro_batch,
        spec.halvings,
        smallest=task.min_micro_batch_size(module),
    )
    ema = None
    if config.ema:
        ema = ExponentialMovingAverage(module, ema_decay_for(config.ema_decay, config.steps))
    best_metric = pick_metric(task, config.best_metric)
    profiled_span = parse_span(config.profile) if config.profile else None
    # cuDNN then measures its kernels once for each shape of a convolution
    torch.backends.cudnn.benchmark = task.has_fixed_size() and not config.deterministic
    # last, when nothing can be wrong any more: these two start threads and processes
    data = TrainingData(task, spec.train_set, config, world, state.step, plan, state.data_origin)
    log = RunLog(
        output,
        world,
        task,
        steps=config.steps,
        start_step=state.step,
        evaluated_at=state.evaluated_at,
        epoch_of=data.sampler.epoch_of,
    )
    log.budget = budget
    return Run(
        config=config,
        output=output,
        world=world,
        module=module,
        model=model,
        sharding=sharding,
        optimizer=optimizer,
        precision=build_precision(config.precision, world.device, tf32=config.tf32),
        ema=ema,
        trained_parameters=[p for p in module.parameters() if p.requires_grad],
        trained_buffers=[
            buffer for layer in batch_norms(module) if layer.training for buffer in layer.buffers()
        ],
        data=data,
        val_set=spec.val_set,
        log=log,
        writer=CheckpointWriter(
            config.save_async or sharding is not None, host_buffers(world.device)
        ),
        clock=clock,
        stop=stop,
        nonfinite_steps=NonFiniteSteps(world.device),
        profiler=StepProfiler(profiled_span, output / "profile", world),
        best_metric=best_metric,
        immutable_settings=spec.immutable_settings,
        start_step=state.step,
        reload_at=task.reload_best_at(config.steps),
        budget=budget,
        state=state,
    )


def build_module(task: Task, config: TrainConfig, world: World) -> nn.Module:
    """Build the model on its device, as it is saved, evaluated and averaged.

    One that is to be sharded stays on the CPU.
    """
    torch.manual_seed(hashed(config.seed))  # the same new weights on every rank
    module: nn.Module = task.build_model()  # 1 weights
    if config.shard == "none":
        module = module.to(world.device)
    if config.sync_bn and world.size > 1:
        if world.device.type != "cuda":
            raise UserError(
                f"--sync-bn: works on CUDA only, this run is on {world.device.type}",
                field="sync_bn",
            )
        module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for parameter in module.parameters():
        if not parameter.numel():  # DDP would miss its gradient, FSDP's backward fails on it
            parameter.requires_grad_(False)
    freeze(task, module)
    if config.deterministic:
        permit_nondeterministic(task.nondeterministic_ops(module), world.device)
    if config.grad_checkpointing:
        apply_grad_checkpointing(task.grad_checkpointing_blocks(module))  # 2 recompute activations
    return module


def check_micro_batch_size(
    task: Task, module: nn.Module, micro_batch_ranges: Sequence[tuple[int, int]]
) -> None:
    """Raise UserError for a micro-batch that is too small for the model or for mixing images."""
    smallest = min(stop - start for start, stop in micro_batch_ranges)
    needed = task.min_micro_batch_size(module)
    if smallest < needed:
        raise UserError(
            f"--micro-batch: this training needs at least {needed} samples in a micro-batch, "
            f"the smallest has {smallest}",
            field="micro_batch",
        )


def wrap_ddp(model: nn.Module, world: World) -> DDP:
    """Wrap the model in DDP with buckets that never change and buffers that are sent when read.

    By default DDP rebuilds its buckets after the first backward, so the first step after a
    resume would add up the ranks' gradients in another order than the same step of a straight run:
    other bytes on three and more processes (measured). With find_unused_parameters the first layout
    stays; it costs a walk over the graph and one small collective. Buffers: see
    `distributed.broadcast_buffers`.
    """
    warnings.filterwarnings("ignore", message="find_unused_parameters=True was specified")
    # depthwise weights [C, 1, k, k] get gradients in channels_last: other strides, the same memory
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    device_ids = [world.device.index] if world.device.type == "cuda" else None
    return DDP(
        model,
        device_ids=device_ids,
        forward_sync_buffers=False,
        gradient_as_bucket_view=True,
        find_unused_parameters=True,
    )


def shard(task: Task, module: nn.Module, config: TrainConfig, world: World) -> Sharding:
    """Compile the blocks of a module if requested, and shard it in place (see engine/sharding).

    Raises:
        UserError: a setting that does not work with sharding.
    """
    for name, works in (("optimizer", config.optimizer != "sgd"), ("sync_bn", not config.sync_bn)):
        if not works:
            raise UserError(
                f"--shard {config.shard}: not with {flag_of(name)} {getattr(config, name)}",
                field="shard",
            )
    # a second of imports that other runs do not need
    from visionloop.engine.sharding.fsdp import build_mesh, shard_module

    units = task.sharding_units(module)
    if config.compile:
        for unit in units:
            unit.compile()
    return shard_module(
        module,
        units,
        build_mesh(config.shard, world),
        world.device,
        gather_dtype=torch.bfloat16 if config.shard_dtype == "bf16" else None,
        prefetch=config.shard_prefetch,
    )


def freeze(task: Task, module: nn.Module) -> None:
    """Apply `--freeze backbone`: no gradients there, and no BatchNorm statistics or dropout."""
    if task.config.freeze != "backbone":
        return
    backbone = task.backbone(module)
    if backbone is None:
        raise UserError("--freeze backbone: this model has no separate backbone", field="freeze")
    backbone.requires_grad_(False).eval()


def pick_metric(task: Task, key: str | None) -> MetricSpec:
    """Return the metric that picks best/: that of --best-metric, or the task's first."""
    specs = {spec.key: spec for spec in task.metrics}
    if key is None:
        return task.metrics[0]
    if key not in specs:
        expected = f"expected one of {', '.join(specs)}, got {key!r}{did_you_mean(key, specs)}"
        raise UserError(f"--best-metric: {expected}", field="best_metric")
    return specs[key]


def set_process(config: TrainConfig) -> None:
    """Set threads and memory of this process and, on CUDA, deterministic algorithms."""
    keep_freed_memory()
    torch.set_num_threads(config.threads)
    if config.deterministic:
        use_deterministic_algorithms()
