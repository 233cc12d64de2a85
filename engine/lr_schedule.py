"""Learning rates as pure functions of the step, and the one predicate for periodic events."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from visionloop.engine.errors import UserError

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from visionloop.engine.config.train_config import TrainConfig


def due(step: int, every: int, last: int) -> bool:
    """Return True every `every` steps and at the last step; with every=0 at the last step only."""
    return step == last or (every > 0 and step % every == 0)


def lr_factor(
    step: int,
    steps: int,
    *,
    schedule: str,
    warmup_steps: int,
    start: int = 0,
    lr_min_ratio: float = 0.0,
    power: float = 0.9,
    milestones: Sequence[float] = (),
) -> float:
    """Return the factor on the learning rate at a step.

    Zero before `start`, then linear warm-up, whose first step is not zero, then the schedule.

    Args:
        step: the step, 0-based.
        steps: steps of the whole run.
        schedule: "cosine" (down to `lr_min_ratio`), "poly" ((1 - t) ** `power`), "step" (half after
            each milestone) or "constant".
        warmup_steps: length of the warm-up.
        start: the first step that trains.
        lr_min_ratio: the last factor of "cosine", 0..1.
        power: the exponent of "poly".
        milestones: fractions of the run, for "step".
    """
    if step < start:
        return 0.0
    warmup_end = start + warmup_steps
    if step < warmup_end:
        return (step - start + 1) / warmup_steps
    progress = (step - warmup_end) / max(1, steps - warmup_end)
    if schedule == "cosine":
        return lr_min_ratio + (1 - lr_min_ratio) * 0.5 * (1 + math.cos(math.pi * progress))
    if schedule == "poly":
        return float((1 - progress) ** power)
    if schedule == "step":
        return float(0.5 ** sum(step >= milestone * steps for milestone in milestones))
    return 1.0


def set_lr(optimizer: Optimizer, step: int, config: TrainConfig) -> dict[str, float]:
    """Set the learning rate of every parameter group for a step; return {group name: lr}."""
    lrs: dict[str, float] = {}
    for group in optimizer.param_groups:
        lr = lr_of(step, config, group["warmup"], group["start"], group["lr_scale"])
        group["lr"] = lrs[group["name"]] = lr
    return lrs


def lr_of(
    step: int, config: TrainConfig, warmup: int | None = None, start: int = 0, scale: float = 1.0
) -> float:
    """Return the learning rate of a step; that of the run without the values of a group.

    Args:
        step: the step, 0-based.
        config: of the run.
        warmup, start, scale: those of a `ParameterGroup`.
    """
    factor = lr_factor(
        step,
        config.steps,
        schedule=config.schedule,
        warmup_steps=config.warmup_steps if warmup is None else warmup,
        start=start,
        lr_min_ratio=min(1.0, config.lr_min / config.lr) if config.lr else 0.0,
        power=config.schedule_power,
        milestones=parse_milestones(config.schedule_milestones),
    )
    return config.lr * scale * factor


def parse_milestones(text: str) -> tuple[float, ...]:
    """Parse "0.5,0.8" into (0.5, 0.8). Raises UserError unless all are between 0 and 1."""
    try:
        milestones = tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        milestones = (-1.0,)
    if any(not 0 < milestone < 1 for milestone in milestones):
        raise UserError(
            "--schedule-milestones: expected fractions of the run between 0 and 1, separated by "
            f"commas, got {text!r}",
            field="schedule_milestones",
        )
    return milestones
