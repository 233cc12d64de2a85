"""One optimizer step."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.nn.utils import clip_grad_norm_

from visionloop.engine.batch import Batch, Normalizers
from visionloop.engine.optim import step_if_finite
from visionloop.engine.out_of_memory import OutOfMemoryGuard, undo_step
from visionloop.engine.precision import Precision
from visionloop.engine.run import Run
from visionloop.engine.seeding import seed_noise
from visionloop.engine.task import Task
from visionloop.engine.tensors import whole


def train_step(
    run: Run, task: Task, micro_batches: Sequence[Batch], normalizers: Normalizers, step: int
) -> tuple[dict[str, torch.Tensor], torch.Tensor] | None:
    """Run forward and backward of this rank's micro-batches, one optimizer step and the EMA.

    All ranks; no host sync, but for one on Metal.

    Args:
        run: the run, whose model, optimizer and EMA change.
        task: computes the losses.
        micro_batches: this rank's batches of the step, in host memory.
        normalizers: divisors of the losses (see `distributed.agree`).
        step: the optimizer step, 0-based.

    Returns:
        ({loss term: scalar on the device}, gradient norm before clipping); None on all ranks, and
        nothing has changed, where a rank ran out of memory.

    Raises:
        RunAgain: a rank ran out of memory where the step cannot be repeated.
    """
    buffers_before = [buffer.clone() for buffer in run.trained_buffers]
    with OutOfMemoryGuard(run, step, len(micro_batches)) as guard:
        totals = add_gradients(
            task,
            run.model,
            micro_batches,
            normalizers,
            step,
            seed=run.config.seed,
            precision=run.precision,
            device=run.world.device,
            before_last=guard.before_last_micro_batch,
        )
        guard.before_update()
        return totals, update_weights(run, totals, buffers_before, step)
    undo_step(run, buffers_before)
    return None


def update_weights(
    run: Run, totals: Mapping[str, torch.Tensor], buffers_before: Sequence[torch.Tensor], step: int
) -> torch.Tensor:
    """Clip the gradients; update weights and EMA, unless the gradients are not finite.

    Args:
        run: the run, with the gradients of the step.
        totals: {loss term: scalar on the device}.
        buffers_before: copies of `run.trained_buffers` from before the step.
        step: the optimizer step, 0-based.

    Returns:
        The gradient norm before clipping.
    """
    config, optimizer, scaler = run.config, run.optimizer, run.precision.scaler
    scaler.unscale_(optimizer)  # clip in true units
    grad_norm = whole(clip_grad_norm_(run.trained_parameters, config.clip_grad))
    nonfinite = (~torch.isfinite(grad_norm)).float()
    step_if_finite(optimizer, nonfinite)
    scaler.update()  # lowers or raises the scale as usual
    optimizer.zero_grad(set_to_none=True)

    is_nonfinite = nonfinite > 0
    for buffer, before in zip(run.trained_buffers, buffers_before, strict=True):
        torch.where(is_nonfinite, before, buffer, out=buffer)
    if run.ema is not None:
        run.ema.update(step, nonfinite)
    # In fp16 a non-finite norm is expected until the scaler has lowered its scale to 1, so it is
    # not counted before. Without a scaler the scale is 1.
    at_least_scale = (scaler.scale(torch.ones_like(nonfinite)) <= 1).float()
    run.nonfinite_steps.record(nonfinite * at_least_scale, step, totals)
    return grad_norm


def go_on() -> None:
    """Do nothing before the last micro-batch, as where no other rank is waiting."""


def add_gradients(
    task: Task,
    model: nn.Module,
    micro_batches: Sequence[Batch],
    normalizers: Normalizers,
    step: int,
    *,
    seed: int,
    precision: Precision,
    device: torch.device,
    before_last: Callable[[], object] = go_on,
) -> dict[str, torch.Tensor]:
    """Add the gradients of this rank's micro-batches, scaled by `precision.scaler`.

    before_last: called before the last micro-batch, in whose backward gradients cross ranks.

    Returns:
        {loss term: scalar on the device}, summed over the micro-batches.
    """
    totals: dict[str, torch.Tensor] = {}
    for i, cpu_batch in enumerate(micro_batches):
        is_last = i == len(micro_batches) - 1
        if is_last:
            before_last()
        batch = cpu_batch.to(device)  # one micro-batch at a time on the device
        # right before the forward: the same noise on any rank
        seed_noise(seed, step, cpu_batch.offset)
        # DDP: gradients cross ranks only on the last micro-batch. Sharded gradients cross on each:
        # kept whole until the last one, they would take as much memory as all weights.
        with model.no_sync() if isinstance(model, DDP) and not is_last else nullcontext():
            with precision.autocast():
                # sums divided by the step's normalizers: micro-batches simply add up
                losses = task.loss(model, batch, normalizers)
            precision.scaler.scale(losses["loss"]).backward()
        for name, value in losses.items():
            totals[name] = totals[name] + value.detach() if name in totals else value.detach()
    return totals
