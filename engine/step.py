"""One optimizer step."""

from contextlib import nullcontext

import torch
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.nn.utils import clip_grad_norm_

from visionloop.engine.seeding import seed_noise


def train_step(run, task, micro_batches, count, step):
    """Forward and backward of this rank's micro-batches, one optimizer step, the EMA. All ranks; no host sync.

    count: {name: number}, what the losses divide by (see distributed.agree). Returns ({loss term:
    device scalar}, gradient norm).
    """
    config, optimizer, scaler = run.config, run.optimizer, run.precision.scaler
    buffers_before = [buffer.clone() for buffer in run.trained_buffers]
    totals = add_gradients(
        task,
        run.model,
        micro_batches,
        count,
        step,
        seed=config.seed,
        precision=run.precision,
        device=run.world.device,
    )

    scaler.unscale_(optimizer)  # clip in true units
    grad_norm = clip_grad_norm_(run.trained_parameters, config.clip_grad)
    bad = (~torch.isfinite(grad_norm)).float()
    # The fused optimizer skips the step on the device where found_inf is 1. GradScaler.step would
    # set its own found_inf, which does not see a norm that overflows, so we call the optimizer
    # ourselves; update() lowers or raises the scale as ever.
    optimizer.grad_scale, optimizer.found_inf = None, bad
    optimizer.step()
    scaler.update()
    optimizer.zero_grad(set_to_none=True)

    is_bad = bad > 0
    for buffer, before in zip(run.trained_buffers, buffers_before, strict=True):
        torch.where(is_bad, before, buffer, out=buffer)
    if run.ema is not None:
        run.ema.update(step, bad)
    # an overflow of fp16 is the scaler at work until the scale has come down to 1; without a scaler
    # the scale is 1
    at_floor = (scaler.scale(torch.ones_like(bad)) <= 1).float()
    run.nonfinite_steps.record(bad * at_floor, step, totals)
    return totals, grad_norm


def add_gradients(task, model, micro_batches, count, step, *, seed, precision, device):
    """Forward and backward of this rank's micro-batches: {loss term: device scalar}. Gradients carry the factor of precision.scaler."""
    totals = {}
    for i, host_batch in enumerate(micro_batches):
        batch = host_batch.to(device)  # one micro-batch at a time on the device
        seed_noise(
            seed, step, host_batch.offset
        )  # right before the forward: the same noise on any rank
        is_last = i == len(micro_batches) - 1
        # gradients cross ranks only on the last micro-batch
        with model.no_sync() if isinstance(model, DDP) and not is_last else nullcontext():
            with precision.autocast():
                losses = task.loss(
                    model, batch, count
                )  # sums divided by the step's counts: micro-batches simply add up
            precision.scaler.scale(losses["loss"]).backward()
        for name, value in losses.items():
            totals[name] = totals[name] + value.detach() if name in totals else value.detach()
    return totals
