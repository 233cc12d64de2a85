"""`check --overfit N`: a few training images overfitted. What cannot do that will not learn from many either."""

import math
import time
from dataclasses import dataclass, field

import torch
from torch.nn.utils import clip_grad_norm_

from visionloop.engine.distributed import World
from visionloop.engine.errors import UserError
from visionloop.engine.evaluation.evaluate import evaluate_dataset
from visionloop.engine.lr_schedule import lr_factor
from visionloop.engine.optim import build_optimizer
from visionloop.engine.prepare import check_micro_batch_size, freeze
from visionloop.engine.seeding import hashed, seed_noise
from visionloop.engine.train import Subset, evenly_spaced

CYCLE = 300  # steps from the full rate down to none; then once more from the top
STEPS = 2 * CYCLE
WARMUP = 20
EVERY = 25  # steps between two scores
LEAST_CLIP = 1.0  # gradients are large at first, and nothing may hold the few steps back
FELL = 0.7  # share of the first loss that a loss which falls is below by the end
NEAR_ZERO = 0.1  # share of the goal


@dataclass
class OverfitResult:
    """How it went. goal: the score to reach; losses: one of every step; scores: {step: the task's score}."""

    goal: float = math.inf
    losses: list = field(default_factory=list)
    scores: dict = field(default_factory=dict)

    @property
    def learned(self):
        return bool(self.scores) and list(self.scores.values())[-1] >= self.goal


def require_goal(task):
    """UserError for a task of which it is not known what it must reach."""
    if task.overfit_goal is None:
        raise UserError(
            f"--overfit: nothing is known of what {task.name} must reach", field="overfit"
        )


def run_overfit(task, config, *, device, say, steps=STEPS):
    """(line about a success, None) or (None, why it failed) of training on config.overfit images of the training split.

    They come as in evaluation, without augmentation, in one optimizer step each time, in fp32; see
    `Task.overfit_samples`. Ends as soon as `task.overfit_goal` is reached, a number or what a trivial
    predictor scores on the same images. say(line): told every 25 steps. Raises UserError for what
    training would refuse too.
    """
    dataset = task.build_eval_dataset("train")
    dataset = Subset(dataset, evenly_spaced(len(dataset), config.overfit))
    torch.manual_seed(hashed(config.seed))
    module = task.build_model().to(device)
    freeze(task, module, config)
    samples, scored = task.overfit_samples(
        [dataset[i] | {"sample_id": torch.tensor(i)} for i in range(len(dataset))]
    )
    pieces = math.ceil(len(samples) / config.micro_batch)
    cuts = [
        (piece * len(samples) // pieces, (piece + 1) * len(samples) // pieces)
        for piece in range(pieces)
    ]
    check_micro_batch_size(task, module, cuts)
    batches = [task.collate(samples[start:stop], steps, start) for start, stop in cuts]
    key, goal = task.overfit_goal
    spec = next(spec for spec in task.metrics if spec.key == key)
    overfit_result, began = OverfitResult(), time.perf_counter()
    for done in train_on(task, module, batches, config, overfit_result, device, steps):
        world = World(0, 0, 1, device)
        metric = evaluate_dataset(
            task, module, scored, batch_size=config.eval_batch_size, world=world
        )
        overfit_result.scores[done] = score = metric.compute()[key]
        overfit_result.goal = task.reference_scores(metric)[goal] if isinstance(goal, str) else goal
        seconds = time.perf_counter() - began
        say(
            f"{done} steps, {seconds:.0f} s: loss {overfit_result.losses[-1]:.3f}, {spec.label} {spec.show(score)}"
        )
        if overfit_result.learned:
            reached = f"; {goal}: {spec.show(overfit_result.goal)}" if isinstance(goal, str) else ""
            return (
                f"{len(dataset)} images overfitted: {spec.label} {spec.show(score)} after {done} steps{reached}",
                None,
            )
    return None, explain_overfit_failure(overfit_result, spec, len(dataset))


def train_on(task, module, batches, config, overfit_result, device, steps):
    """Trains `module` on the same batches for so many steps; yields the number of steps done, every 25 and at the end.

    To the task every step is one past its last, where none of its own augmentation is left. A loss
    that is not finite ends it.
    """
    optimizer = build_optimizer(task.parameter_groups(module), module, config)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    count = {
        name: number or 1 for name, number in task.count(batches).items()
    }  # images may all be empty
    for step in range(steps):
        factor = lr_factor(step % CYCLE, CYCLE, schedule="cosine", warmup_steps=WARMUP)
        for group in optimizer.param_groups:
            group["lr"] = config.lr * group["lr_scale"] * factor
        task.before_step(module, steps, steps)
        overfit_result.losses.append(0.0)
        for offset, batch in enumerate(batches):
            seed_noise(config.seed, step, offset)
            loss = task.loss(module, batch.to(device), count)["loss"]
            loss.backward()
            overfit_result.losses[-1] += loss.item()
        if not math.isfinite(overfit_result.losses[-1]):
            return
        clip_grad_norm_(trained, max(LEAST_CLIP, config.clip_grad))
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % EVERY == 0 or step + 1 == steps:
            yield step + 1


def explain_overfit_failure(overfit_result, spec, images):
    """What is known about images that were not learned, in one line."""
    first, last = overfit_result.losses[0], overfit_result.losses[-1]
    if not math.isfinite(last):
        return f"{images} images cannot be overfitted: the loss is {last} in step {len(overfit_result.losses)}; is --lr too high?"
    finite = [score for score in overfit_result.scores.values() if math.isfinite(score)]
    best = max(finite, default=float("nan"))
    known = (
        f"{images} images are not overfitted in {len(overfit_result.losses)} steps: {spec.label} {spec.show(best)} at best, "
        f"wanted is {spec.show(overfit_result.goal)}; the loss went from {first:.3f} to {last:.3f}"
    )
    if not finite:
        return f"{known}; there is nothing to score in these images: do they have targets?"
    if last > FELL * first:
        return f"{known}, it hardly fell: --lr is far off, or the targets have nothing to do with the images"
    if best < NEAR_ZERO * overfit_result.goal:
        return f"{known}, it fell and the score did not rise: the targets do not lie where the images show them"
    return f"{known}, both on their way: another --lr may do, or fewer images"
