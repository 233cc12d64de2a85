"""`check --overfit N`: training on a few images until they are overfitted.

A model, loss or dataset that cannot overfit a few images will not learn from many either.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from visionloop.engine.batch import Batch, Normalizers
from visionloop.engine.config.train_config import TrainConfig
from visionloop.engine.data.subsets import Subset, evenly_spaced
from visionloop.engine.distributed import World
from visionloop.engine.errors import UserError
from visionloop.engine.evaluation.evaluate import evaluate_dataset
from visionloop.engine.lr_schedule import lr_factor
from visionloop.engine.metric import MetricSpec
from visionloop.engine.optim import build_optimizer
from visionloop.engine.precision import build_precision
from visionloop.engine.prepare import build_module, check_micro_batch_size
from visionloop.engine.step import add_gradients
from visionloop.engine.task import Task
from visionloop.engine.types import Sample

CYCLE = 300  # steps of a cosine schedule, which is then repeated
STEPS = 2 * CYCLE
WARMUP = 20
EVALUATE_EVERY = 25
# gradients are large at first, and no small --clip-grad may hold the few steps back
MIN_CLIP_GRAD = 1.0
MAX_FINAL_LOSS = 0.7  # as a share of the first loss: more than this has hardly fallen
NEAR_ZERO = 0.1  # as a share of the goal


@dataclass
class OverfitResult:
    """Course of a run. goal: the score to reach; losses: of each step; scores: {step: score}."""

    goal: float = math.inf
    losses: list[float] = field(default_factory=list)
    scores: dict[int, float] = field(default_factory=dict)

    @property
    def reached_goal(self) -> bool:
        return bool(self.scores) and list(self.scores.values())[-1] >= self.goal


def require_goal(task: Task) -> None:
    """Raise a UserError for a task without the score that overfitting must reach."""
    if task.overfit_goal is None:
        why = f"{task.name} does not say which score it must reach"
        raise UserError(f"--overfit: {why}", field="overfit")


def run_overfit(
    task: Task,
    config: TrainConfig,
    *,
    device: torch.device,
    print_line: Callable[[str], object],
    steps: int = STEPS,
) -> tuple[str | None, str | None]:
    """Train on config.overfit images: return (a line about success, None) or (None, the failure).

    The images are of the training split, as in evaluation, without augmentation; all of them are
    in every step, in fp32 (see `Task.overfit_samples`). Training ends as soon as the score of
    `task.overfit_goal` is reached: a number, or what a trivial predictor scores on the same images.
    Every 25 steps `print_line` gets the scores. Raises UserError for what training would refuse.
    """
    dataset = task.build_eval_dataset("train")
    subset = Subset(dataset, evenly_spaced(len(dataset), config.overfit))
    world = World(0, 0, 1, device)
    module = build_module(task, replace(config, shard="none"), world)
    samples, scored = task.overfit_samples(
        [subset[i] | {"sample_id": torch.tensor(i)} for i in range(len(subset))]
    )
    ranges = split_evenly(len(samples), config.micro_batch)
    check_micro_batch_size(task, module, ranges)
    micro_batches = collate_samples(task, samples, ranges, steps)
    assert task.overfit_goal is not None
    key, goal = task.overfit_goal
    spec = next(spec for spec in task.metrics if spec.key == key)
    result, began = OverfitResult(), time.perf_counter()
    for done in train_repeatedly(task, module, micro_batches, config, result, world, steps):
        metric = evaluate_dataset(
            task,
            module,
            scored,  # type: ignore[arg-type]  # samples in memory: none can be unreadable
            batch_size=config.eval_batch_size,
            world=world,
        )
        assert metric is not None, "an evaluation that was stopped"
        result.scores[done] = score = metric.compute()[key]
        result.goal = task.reference_scores(metric)[goal] if isinstance(goal, str) else goal
        score_text = f"{spec.label} {spec.show(score)}"
        seconds = time.perf_counter() - began
        print_line(f"{done} steps, {seconds:.0f} s: loss {result.losses[-1]:.3f}, {score_text}")
        if result.reached_goal:
            reference = f"; {goal}: {spec.show(result.goal)}" if isinstance(goal, str) else ""
            return (
                f"{len(subset)} images overfitted: {score_text} after {done} steps{reference}",
                None,
            )
    return None, explain_overfit_failure(result, spec, len(subset))


def split_evenly(num_samples: int, micro_batch: int) -> list[tuple[int, int]]:
    """Return the (start, stop) of the fewest micro-batches, which differ by one sample at most."""
    count = math.ceil(num_samples / micro_batch)
    borders = [i * num_samples // count for i in range(count + 1)]
    return list(itertools.pairwise(borders))


def collate_samples(
    task: Task, samples: Sequence[Sample], ranges: Sequence[tuple[int, int]], step: int
) -> list[Batch]:
    """Collate the micro-batches of step `step`, which are those of every step."""
    return [task.collate(samples[start:stop], step, start) for start, stop in ranges]


def train_repeatedly(
    task: Task,
    module: nn.Module,
    micro_batches: Sequence[Batch],
    config: TrainConfig,
    result: OverfitResult,
    world: World,
    steps: int,
) -> Iterator[int]:
    """Train on the same micro-batches in every step; yield the steps done, every 25 and at the end.

    To the task each step is one past its last, where none of its own augmentation is left. Losses
    are added to `result`; one that is not finite ends the training.
    """
    optimizer = build_optimizer(task.parameter_groups(module), module, config)
    precision = build_precision("fp32", world.device, tf32=config.tf32)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    # no image may have a target
    counts = task.count_normalizers(micro_batches)
    normalizers = Normalizers({name: count or 1 for name, count in counts.items()})
    for step in range(steps):
        factor = lr_factor(step % CYCLE, CYCLE, schedule="cosine", warmup_steps=WARMUP)
        for group in optimizer.param_groups:
            group["lr"] = config.lr * group["lr_scale"] * factor
        task.before_step(module, steps, steps)
        losses = add_gradients(
            task,
            module,
            micro_batches,
            normalizers,
            step,
            seed=config.seed,
            precision=precision,
            device=world.device,
        )
        result.losses.append(losses["loss"].item())
        if not math.isfinite(result.losses[-1]):
            return
        clip_grad_norm_(trained, max(MIN_CLIP_GRAD, config.clip_grad))
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % EVALUATE_EVERY == 0 or step + 1 == steps:
            yield step + 1


def explain_overfit_failure(result: OverfitResult, spec: MetricSpec, num_images: int) -> str:
    """Return one line about the likely cause of images that were not overfitted."""
    first, last, steps = result.losses[0], result.losses[-1], len(result.losses)
    if not math.isfinite(last):
        why = f"the loss is {last} in step {steps}; is --lr too high?"
        return f"{num_images} images cannot be overfitted: {why}"
    finite = [score for score in result.scores.values() if math.isfinite(score)]
    best = max(finite, default=float("nan"))
    facts = (
        f"{num_images} images are not overfitted in {steps} steps: {spec.label} {spec.show(best)} "
        f"at best, expected {spec.show(result.goal)}; the loss went from {first:.3f} to {last:.3f}"
    )
    if not finite:
        return f"{facts}; there is nothing to score in these images: do they have targets?"
    if last > MAX_FINAL_LOSS * first:
        why = "it hardly fell: --lr is far off, or the targets do not belong to the images"
    elif best < NEAR_ZERO * result.goal:
        why = "it fell and the score did not rise: the targets lie elsewhere than in the images"
    else:
        why = "both improve slowly: try another --lr, or fewer images"
    return f"{facts}, {why}"
