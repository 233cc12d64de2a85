"""Learning rates as pure functions of the step, and the one predicate for what happens periodically."""

import math

from visionloop.engine.errors import UserError


def due(step, every, last):
    """True every `every` steps and at the end. every=0: at the end only."""
    return step == last or (every > 0 and step % every == 0)


def lr_factor(
    step, steps, *, schedule, warmup_steps, start=0, lr_min_ratio=0.0, power=0.9, milestones=()
):
    """Factor on the peak rate at `step` (0-based) of `steps`.

    Nothing before `start`, linear warm-up over warmup_steps (the first of them already moves), then
    cosine to lr_min_ratio, (1 - t)^power, a constant, or a halving at each milestone (shares of the
    run).
    """
    if step < start:
        return 0.0
    peak = start + warmup_steps
    if step < peak:
        return (step - start + 1) / warmup_steps
    progress = (step - peak) / max(1, steps - peak)
    if schedule == "cosine":
        return lr_min_ratio + (1 - lr_min_ratio) * 0.5 * (1 + math.cos(math.pi * progress))
    if schedule == "poly":
        return (1 - progress) ** power
    if schedule == "step":
        return 0.5 ** sum(step >= share * steps for share in milestones)
    return 1.0


def set_lr(optimizer, step, config):
    """Write every group's rate for this step; returns {group name: lr}."""
    rates = {}
    for group in optimizer.param_groups:
        factor = lr_factor(
            step,
            config.steps,
            schedule=config.schedule,
            warmup_steps=config.warmup_steps if group["warmup"] is None else group["warmup"],
            start=group["start"],
            lr_min_ratio=min(1.0, config.lr_min / config.lr) if config.lr else 0.0,
            power=config.schedule_power,
            milestones=parse_milestones(config.schedule_milestones),
        )
        group["lr"] = rates[group["name"]] = config.lr * group["lr_scale"] * factor
    return rates


def parse_milestones(text):
    """ "0.5,0.8" -> (0.5, 0.8). Raises UserError when they are not shares of the run."""
    try:
        shares = tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        shares = (-1.0,)
    if any(not 0 < share < 1 for share in shares):
        raise UserError(
            f"--schedule-milestones: expected shares between 0 and 1, got {text!r}",
            field="schedule_milestones",
        )
    return shares
