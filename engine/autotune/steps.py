"""How many steps fit into `--budget`: measured once, in a calibration, before the run begins."""

import hashlib
import json
import math
import time
from dataclasses import asdict

from visionloop.engine.autotune.dry_run import calibrate, part_of
from visionloop.engine.budget import LEAVING_SECONDS, Figures
from visionloop.engine.config.options import Seconds, duration_text
from visionloop.engine.distributed import broadcast_object, sum_over_ranks
from visionloop.engine.errors import UserError

SHARE = 0.03  # of the time left for the steps of the calibration, and at most as much for its evaluation
ROUGH_STEPS, FEWEST_STEPS, MOST_STEPS = 4, 6, 400
# The schedule is this much longer than what seems to fit: should the machine become quicker no time
# is left over, and what does not fit is ended by the clock, where the rate has come down to its
# least.
SLACK = 0.04
MOST_FITTED = 10**8


def find_steps(task, resolve, world, train_set, val, *, budget, output, stop):
    """The optimizer steps that fit into what is left of the budget, None after a stop. All ranks agree.

    resolve(steps): the TrainConfig of a run of so many steps, which the task is told of too;
    budget: a Budget on the main rank, None elsewhere; gets figures and steps. Raises UserError for
    a budget that one step, an evaluation and a save do not fit into.
    """
    late = Late(stop, budget)

    def try_out(steps, images, scored):
        config = resolve(steps)
        return calibrate(
            task,
            config,
            world,
            part_of(train_set, max(images, config.batch_size)),
            part_of(val, scored),
            output=output,
            stop=late,
        ), config

    rough, config = try_out(
        ROUGH_STEPS, len(train_set), world.size * resolve(ROUGH_STEPS).eval_batch_size
    )
    if rough is None:
        return cut_short(late, world)
    share = budget and SHARE * budget.remaining()
    plan = budget and plan_calibration(rough, share, config.batch_size, len(val))
    steps, images, scored = broadcast_object(world, plan)
    seen, config = try_out(steps, images, scored)
    if seen is None:
        return cut_short(late, world)
    found = None
    if budget:
        figures = Figures(
            seen.start,
            seen.first_step,
            seen.step,
            seen.evaluation(len(val)),
            seen.save,
            seen.last_save,
        )
        budget.figures = less_busy(figures, seen.contention)
        found = budget.steps = most_steps(
            resolve, budget.figures, len(train_set), budget.remaining()
        )
    found = broadcast_object(world, found)
    if not found:
        raise too_small(budget, world)
    return found


def less_busy(figures, contention):
    """The figures of a machine halfway between idle and as busy as it was: other programs come and go. contention: see CalibrationRun."""
    return Figures(**{name: value / contention**0.5 for name, value in asdict(figures).items()})


class Late:
    """A wish to stop: that of the user, or because the whole budget is gone before the run has begun."""

    def __init__(self, stop, budget):
        self.stop, self.budget = stop, budget

    def __call__(self):
        return self.stop() or (self.budget is not None and self.budget.remaining() <= 0)


def cut_short(late, world):
    """None after a stop; UserError when the time was up instead. All ranks."""
    if not any(sum_over_ranks(world, [float(late.stop())])):
        raise too_small(late.budget, world)


def too_small(budget, world):
    """The UserError of a budget into which nothing fits. All ranks."""
    message = None
    if budget:
        figures = budget.figures
        spent = budget.seconds - budget.remaining()
        needed = spent + (
            figures.start
            + figures.first_step
            + figures.evaluation
            + figures.last_save
            + LEAVING_SECONDS
            if figures
            else 0
        )
        least = (
            f"at least {duration_text(math.ceil(needed))}"
            if figures
            else f"more than {duration_text(math.ceil(spent))}"
        )
        what = "what getting ready, one step, an evaluation and a save take here"
        message = f"--budget {duration_text(budget.seconds)}: expected {least}, {what}"
    return UserError(broadcast_object(world, message), code="budget_too_small", field="budget")


def plan_calibration(rough, share, batch_size, images):
    """(steps, training images, validation images) of a calibration whose steps take `share` seconds, as does its evaluation.

    rough: an earlier CalibrationRun; images: of the validation set.

    Each image is read three times or more, so that it shows what keeping decoded images saves
    after the first epoch.
    """
    steps = min(MOST_STEPS, max(FEWEST_STEPS, round(share / rough.step)))
    scored = rough.evaluations[-1][0]  # more than at first where time allows
    while scored < images and rough.evaluation(2 * scored) <= share:
        scored *= 2
    return (
        steps,
        math.ceil(steps * batch_size / 3),
        images if rough.evaluation(images) <= 2 * share else min(scored, images),
    )


def most_steps(resolve, figures, num_samples, seconds):
    """The steps whose cost fits into so many seconds and SLACK more; 0 where not even one does."""
    room = seconds - LEAVING_SECONDS
    if cost(resolve(1), figures, num_samples) > room:
        return 0
    low, high = 1, 2
    while high < MOST_FITTED and cost(resolve(high), figures, num_samples) <= room * (1 + SLACK):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        fits = cost(resolve(middle), figures, num_samples) <= room * (1 + SLACK)
        low, high = (middle, high) if fits else (low, middle)
    return low


def cost(config, figures, num_samples):
    """Seconds of a run of config.steps steps. Each evaluation is taken for a better one, which is saved."""
    new = min(config.steps, math.ceil(num_samples / config.batch_size))
    steps = new * figures.first_step + (config.steps - new) * figures.step
    evaluations, saves = (
        times(config.steps, config.eval_every),
        times(config.steps, config.save_every),
    )
    if isinstance(config.save_every, Seconds):
        saves = 1 + (int(steps // config.save_every) if config.save_every else 0)
    return (
        figures.start
        + steps
        + evaluations * figures.evaluation
        + max(evaluations, saves) * figures.save
        + figures.last_save
    )


def times(steps, every):
    """How often something happens every so many steps; right before the end it is left out where time is short."""
    return max(1, steps // every) if every else 1


def key_of(immutable_settings, settings):
    """A text that is the same for runs whose steps may be taken over: fixed settings that were given, and the data."""
    given = {
        name: value
        for name, value in immutable_settings.items()
        if name not in settings or settings[name].source != "auto"
    }
    return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()[:16]


def told(config, figures, budget):
    """The line that says what was found."""
    row = asdict(figures)
    each = f"step {1000 * row['step']:.0f} ms, evaluation {row['evaluation']:.1f} s, checkpoint {row['save']:.1f} s"
    spent = duration_text(time.monotonic() - budget.began)
    return f"budget {duration_text(budget.seconds)}: {config.steps} steps fit ({each}); {spent} of it went into getting ready and measuring"
