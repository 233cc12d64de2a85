"""Step-budget estimation: how many steps fit into `--budget`, from calibration runs."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, replace

from visionloop.engine.autotune.calibration import CalibrationRun, calibrate, part_of
from visionloop.engine.budget import LEAVING_SECONDS, Budget, Figures
from visionloop.engine.config.options import Seconds, SettingSource, duration_text
from visionloop.engine.config.resolve import ResolvedSettings
from visionloop.engine.config.train_config import TrainConfig
from visionloop.engine.distributed import World, broadcast_object, sum_over_ranks
from visionloop.engine.errors import UserError
from visionloop.engine.run import RunSpec

# of the time that is left: for the steps of the calibration run, and at most as much for its
# evaluation
CALIBRATION_SHARE = 0.03
ROUGH_STEPS, MIN_STEPS, MAX_STEPS = 4, 6, 400  # of calibration runs
MAX_WAITING_SHARE = 0.1  # of the time of steps, with which caches change little
# The schedule is this much longer than what seems to fit: should the machine become faster no time
# is left over, and what does not fit is ended by the clock, where the learning rate has come down
# almost to its end.
SLACK = 0.04
MAX_ESTIMATE = 10**8


def estimate_steps(
    spec: RunSpec,
    resolve: Callable[[int], ResolvedSettings],
    *,
    budget: Budget | None,
    stop: Callable[[], bool],
) -> int | None:
    """Estimate the optimizer steps that fit into what is left of the budget. All ranks agree.

    Args:
        spec: the inputs of the run.
        resolve: returns the settings of a run of a number of steps; changes nothing.
        budget: on the main rank, None elsewhere; its figures and steps are set.
        stop: called at each step; True stops.

    Returns:
        The number of steps, None after a stop.

    Raises:
        UserError: one step, an evaluation and a save do not fit into the budget.
    """
    world, num_samples, num_images = spec.world, len(spec.train_set), len(spec.val_set)
    stop_or_late = StopOrBudgetOver(stop, budget)

    def run_calibration(steps: int, train_images: int, val_images: int) -> CalibrationRun | None:
        short = spec.with_settings(resolve(steps))
        short = replace(
            short,
            train_set=part_of(spec.train_set, max(train_images, short.config.batch_size)),
            val_set=part_of(spec.val_set, val_images),
        )
        return calibrate(short, stop_or_late)

    batch_size = spec.config.batch_size
    rough = run_calibration(ROUGH_STEPS, num_samples, world.size * spec.config.eval_batch_size)
    if rough is None:
        raise_unless_stopped(stop_or_late, world)
        return None
    plan = (0, 0, 0)
    if budget:
        seconds = CALIBRATION_SHARE * budget.remaining()
        plan = plan_calibration(rough, seconds, batch_size, num_images)
    calibration = run_calibration(*broadcast_object(world, plan))
    if calibration is None:
        raise_unless_stopped(stop_or_late, world)
        return None
    steps = 0
    if budget:
        figures = figures_of(calibration, num_images)
        budget.figures = correct_for_contention(figures, calibration.contention)
        steps = budget.steps = steps_within(
            lambda steps: resolve(steps).train_config,
            budget.figures,
            num_samples,
            budget.remaining(),
        )
    steps = broadcast_object(world, steps)
    if not steps:
        raise budget_too_small(budget, world)
    return steps


def figures_of(calibration: CalibrationRun, num_images: int) -> Figures:
    """Return the durations of a run whose evaluations score `num_images` images."""
    return Figures(
        start=calibration.start,
        first_step=calibration.first_step,
        step=calibration.step,
        evaluation=calibration.evaluation(num_images),
        save=calibration.save,
        last_save=calibration.last_save,
    )


def correct_for_contention(figures: Figures, contention: float) -> Figures:
    """Return the figures of a machine halfway between idle and as busy as it was.

    Other programs come and go. contention: see CalibrationRun.
    """
    return Figures(**{name: value / contention**0.5 for name, value in asdict(figures).items()})


class StopOrBudgetOver:
    """A stop flag that is also raised when the budget is over before the run has begun."""

    def __init__(self, stop: Callable[[], bool], budget: Budget | None) -> None:
        self.stop, self.budget = stop, budget

    def __call__(self) -> bool:
        """Return True when the calibration run is to stop."""
        return self.stop() or (self.budget is not None and self.budget.remaining() <= 0)


def raise_unless_stopped(stop_or_late: StopOrBudgetOver, world: World) -> None:
    """Raise UserError if the budget was over, and not a stop requested. All ranks."""
    if not any(sum_over_ranks(world, [float(stop_or_late.stop())])):
        raise budget_too_small(stop_or_late.budget, world)


def budget_too_small(budget: Budget | None, world: World) -> UserError:
    """Return the error of a budget that nothing fits into. All ranks."""
    message = ""
    if budget:
        used, figures = budget.seconds - budget.remaining(), budget.figures
        least = f"more than {duration_text(math.ceil(used))}"
        if figures:
            needed = used + figures.start + figures.first_step + figures.evaluation
            needed += figures.last_save + LEAVING_SECONDS
            least = f"at least {duration_text(math.ceil(needed))}"
        what = "the time of start-up, one step, an evaluation and a checkpoint on this machine"
        message = f"--budget {duration_text(budget.seconds)}: expected {least}, {what}"
    return UserError(broadcast_object(world, message), code="budget_too_small", field="budget")


def plan_calibration(
    rough: CalibrationRun, seconds: float, batch_size: int, num_images: int
) -> tuple[int, int, int]:
    """Plan a calibration run whose steps take `seconds`, and its evaluation about as much.

    Each training image is read three times or more, so that the run shows what keeping decoded
    images saves after the first epoch.

    Args:
        rough: an earlier calibration run.
        seconds: for the steps.
        batch_size: of the run.
        num_images: of the validation set.

    Returns:
        (steps, training images, validation images).
    """
    steps = min(MAX_STEPS, max(MIN_STEPS, round(seconds / rough.step)))
    scored = rough.evaluations[-1][0]  # more than at first where time allows
    while scored < num_images and rough.evaluation(2 * scored) <= seconds:
        scored *= 2
    if rough.evaluation(num_images) <= 2 * seconds:
        scored = num_images
    return steps, math.ceil(steps * batch_size / 3), min(scored, num_images)


def is_precise(rough: CalibrationRun, steps: int, images: int) -> bool:
    """Return whether a rough calibration run tells as much as the planned one would.

    Its steps are so long that a plan has the fewest steps there are, reading is a small part of
    them, so that keeping decoded images changes little, and it has evaluated half of the planned
    images or more.

    Args:
        rough: an earlier calibration run.
        steps, images: planned steps and validation images, see `plan_calibration`.
    """
    scored = rough.evaluations[-1][0]
    return steps <= MIN_STEPS and images <= 2 * scored and rough.waiting_share <= MAX_WAITING_SHARE


def steps_within(
    config_for: Callable[[int], TrainConfig], figures: Figures, num_samples: int, seconds: float
) -> int:
    """Return the most steps that fit into `seconds`, with SLACK added; 0 if none does.

    Args:
        config_for: returns the settings of a run of a number of steps.
        figures: measured durations.
        num_samples: training samples.
        seconds: what is left of the budget.
    """
    available = seconds - LEAVING_SECONDS
    if run_seconds(config_for(1), figures, num_samples) > available:
        return 0
    limit = available * (1 + SLACK)
    low, high = 1, 2
    while high < MAX_ESTIMATE and run_seconds(config_for(high), figures, num_samples) <= limit:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        fits = run_seconds(config_for(middle), figures, num_samples) <= limit
        low, high = (middle, high) if fits else (low, middle)
    return low


def run_seconds(config: TrainConfig, figures: Figures, num_samples: int) -> float:
    """Estimate the seconds of a run of `config.steps` steps.

    Each evaluation is assumed to be a better one, which is saved.
    """
    new = min(config.steps, math.ceil(num_samples / config.batch_size))
    steps = new * figures.first_step + (config.steps - new) * figures.step
    evaluations = num_events(config.steps, config.eval_every)
    if isinstance(config.save_every, Seconds):
        saves = 1 + (int(steps // config.save_every) if config.save_every else 0)
    else:
        saves = num_events(config.steps, config.save_every)
    return (
        figures.start
        + steps
        + evaluations * figures.evaluation
        + max(evaluations, saves) * figures.save
        + figures.last_save
    )


def num_events(steps: int, every: int) -> int:
    """Count the events that happen every `every` steps and at the end.

    One right before the end is left out when the time is short.
    """
    return max(1, steps // every) if every else 1


def settings_key(resolved: ResolvedSettings) -> str:
    """Hash the immutable settings that the user chose, and the data.

    Runs with the same key may take over the steps of one another.
    """
    settings = resolved.settings
    chosen = {
        name: value
        for name, value in resolved.immutable_settings.items()
        if name not in settings or settings[name].source != SettingSource.AUTO
    }
    return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:16]


def budget_message(steps: int, budget: Budget) -> str:
    """Return the line about the estimate."""
    assert budget.figures is not None
    figures = budget.figures
    parts = f"a step takes {1000 * figures.step:.0f} ms, an evaluation {figures.evaluation:.1f} s"
    parts += f", a checkpoint {figures.save:.1f} s"
    used = duration_text(time.monotonic() - budget.began)
    total = duration_text(budget.seconds)
    return f"budget {total}: {steps} steps fit ({parts}); start-up and measuring took {used} of it"
