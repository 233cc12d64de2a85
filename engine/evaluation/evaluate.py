"""Evaluation: the bare module on fixed batches over all ranks, with counts that merge exactly."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
from torch import nn

from visionloop.engine.budget import TimeLeft
from visionloop.engine.data.loader import evaluation_loader
from visionloop.engine.data.prefetch import DataError, Prefetcher
from visionloop.engine.distributed import (
    World,
    broadcast_buffers,
    broadcast_object,
    gather_objects,
    gather_on_main,
    sum_over_ranks,
)
from visionloop.engine.errors import UserError
from visionloop.engine.evaluation.bootstrap import FEW_IMAGES, score_intervals
from visionloop.engine.evaluation.record import Evaluation, make_record, write_record
from visionloop.engine.evaluation.samples import (
    SelectedSamples,
    draw_sample_sheets,
    draw_selected_samples,
    images_due,
    in_eval_mode,
    select_samples,
)
from visionloop.engine.metric import Metric
from visionloop.engine.precision import exact_products
from visionloop.engine.system.memory import is_out_of_memory
from visionloop.engine.task import Task
from visionloop.engine.types import SampleDataset, Scores

if TYPE_CHECKING:
    from visionloop.engine.run import Run


def evaluate(run: Run, task: Task) -> None:
    """Score the weights of this step, with and without EMA; update the best score; log and record.

    All ranks. A stop ends it between two batches without a result: `evaluated_at` does not change,
    and the resumed run evaluates first.
    """
    with run.clock.measure("evaluation"):
        raw_metric = None
        try:
            with run.ema.applied(run.module) if run.ema else nullcontext(), run.gathered():
                metric = evaluate_module(run, task)
                selected = None if metric is None else show_samples(run, task, metric)
            if run.ema and selected is not None:
                with run.gathered():
                    raw_metric = evaluate_module(run, task)
        except UserError as error:
            # an unreadable image, or too little memory: the loop saves, then fails with it
            run.ending.failure, run.ending.stopping = error, True
            return
        if metric is None or selected is None or (run.ema and raw_metric is None):
            run.ending.stopping = True
            return
        run.state.scores = compute_scores(run.world, metric)
        run.state.evaluated_at = run.state.step
        run.last_save.step = None  # a checkpoint of this step lacks these scores
        update_best(run)
        if run.world.is_main:
            raw_scores = raw_metric.compute() if raw_metric is not None else None
            log_evaluation(run, task, metric, raw_scores, selected)


def evaluate_module(run: Run, task: Task) -> Metric | None:
    """Evaluate the run's module on its validation images; None after a stop. All ranks."""
    broadcast_buffers(run.world, run.module)
    return evaluate_dataset(
        task,
        run.module,
        run.val_set,
        batch_size=run.config.eval_batch_size,
        workers=run.config.workers,
        world=run.world,
        stop=run.stop,
    )


def show_samples(run: Run, task: Task, metric: Metric) -> SelectedSamples | None:
    """Select the samples to show, and draw them where images are due.

    All ranks: the main one draws while the others wait.

    Returns:
        {"fixed": samples, "worst": samples} on the main rank, {} on the others; None after a stop.
    """
    selected: SelectedSamples | None = {}
    if run.world.is_main:
        selected = select_samples(task, metric, run.val_set)
        config = run.config
        if run.ending.time_left is TimeLeft.OVER or images_due(
            run.state.step, config.eval_every, config.steps, config.batch_size
        ):
            selected = draw_where_memory_allows(run, task, selected)
    (stops,) = sum_over_ranks(run.world, [float(selected is None)])
    return None if stops else selected


def draw_where_memory_allows(
    run: Run, task: Task, selected: SelectedSamples
) -> SelectedSamples | None:
    """Add images to the selected samples, or leave them out with a warning. Main rank only."""
    try:
        return draw_selected_samples(run, task, selected)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    run.log.warn("out of memory while the samples were drawn: this evaluation has no images")
    return selected


def log_evaluation(
    run: Run,
    task: Task,
    metric: Metric,
    raw_scores: Scores | None,
    selected: SelectedSamples,
) -> None:
    """Log an evaluation to console, metrics.jsonl and TensorBoard; write its record.

    Main rank only. raw_scores: of the training weights, None without EMA.
    """
    state = run.state
    evaluation = Evaluation(
        step=state.step,
        epoch=run.data.sampler.epoch_of(state.step),
        scores=state.scores,
        raw_scores=raw_scores,
        intervals=score_intervals(metric) if len(metric) < FEW_IMAGES else {},
        reference=task.reference_scores(metric),
        per_class=task.per_class_scores(metric),
        samples=selected,
    )
    run.log.scores(
        state.step,
        state.scores,
        raw=raw_scores,
        intervals=evaluation.intervals,
        train_loss=state.train_loss,
        reference=evaluation.reference,
    )
    run.log.images(state.step, task.draw_scores(metric) | draw_sample_sheets(task, selected))
    run.log.classes(state.step, task.metrics[0], evaluation.per_class)
    run.log.update_status(best=state.best)
    warning = write_record(run.output, make_record(task, metric, evaluation), selected)
    if warning:
        run.log.warn(warning)


def never_stop() -> bool:
    """Return False: the default of `evaluate_dataset(stop=...)`."""
    return False


def evaluate_dataset(
    task: Task,
    module: nn.Module,
    dataset: SampleDataset,
    *,
    batch_size: int,
    workers: int = 0,
    world: World | None = None,
    stop: Callable[[], bool] = never_stop,
    advance: Callable[[int], object] | None = None,
) -> Metric | None:
    """Evaluate a module on every sample of a dataset, once, in fp32. All ranks.

    Rank j mod W gets batch j, so no image counts twice and the result is the same on any
    number of ranks.

    Args:
        task: gives `predict` and the metric.
        module: the bare module, not wrapped in DDP.
        dataset: the samples.
        batch_size: samples in a batch.
        workers: number of workers that read them.
        world: this process and its peers; the default is one process alone.
        stop: called at each batch; all ranks stop after the same batch.
        advance: called after each batch with its size.

    Returns:
        The metric over all ranks on the main rank, and that of the own samples on the others; None
        after a stop.

    Raises:
        UserError: an image cannot be read, or a rank runs out of memory.
    """
    world = world or World(0, 0, 1, torch.device("cpu"))
    loader = evaluation_loader(
        task,
        dataset,
        batch_size=batch_size,
        workers=workers,
        rank=world.rank,
        world_size=world.size,
    )
    prefetcher = Prefetcher(loader, ahead=2, device=world.device)
    metric = task.build_metric()
    failure: UserError | None = None
    own_rounds, rounds = len(loader), math.ceil(math.ceil(len(dataset) / batch_size) / world.size)
    try:
        with in_eval_mode(module), exact_products(world.device):
            for i in range(rounds):
                fetched = prefetcher.fetch(1, stop) if i < own_rounds else []
                batches = [batch for batch, _ in fetched or []]
                # all ranks leave at the same batch border
                if leave_evaluation(world, batches, failure, stops=fetched is None or stop()):
                    return None
                for host_batch in batches:
                    try:
                        batch = host_batch.to(world.device)
                        with torch.no_grad():
                            predictions = task.predict(module, batch)
                        metric.update(predictions, batch)
                    except Exception as error:
                        if not is_out_of_memory(error):
                            raise
                        failure = no_memory_to_evaluate(batch_size)
                    if advance:
                        advance(len(host_batch))
            leave_evaluation(world, (), failure, stops=False)
    finally:
        prefetcher.close()
    states = gather_on_main(world, metric.state())
    if world.is_main:
        metric.merge(states)
    return metric


def compute_scores(world: World, metric: Metric) -> Scores:
    """Return the scores of the main rank's metric on every rank. All ranks.

    The other ranks wait: the boxes of COCO's validation images take more than 1 GB per process.
    """
    return broadcast_object(world, metric.compute() if world.is_main else {})


def no_memory_to_evaluate(batch_size: int) -> UserError:
    """Return the error of an evaluation that does not fit into memory."""
    hint = (
        "stop other programs on this device, or take fewer images at once (--batch-size of "
        "evaluate; --eval-batch-size of another run)"
    )
    return UserError(
        f"out of memory in the evaluation of {batch_size} images at once; {hint}",
        code="no_memory",
        field="eval_batch_size",
        hint=hint,
    )


def leave_evaluation(
    world: World, batches: Sequence[object], failure: UserError | None, *, stops: bool
) -> bool:
    """Return True when a rank stops. All ranks.

    Args:
        world: the processes.
        batches: the next batches of this rank.
        failure: the error of the batches before on this rank.
        stops: this rank wants to stop.

    Raises:
        UserError: a rank has a failure or a DataError.
    """
    error = next((batch.as_user_error() for batch in batches if isinstance(batch, DataError)), None)
    error = failure or error
    num_stops, num_errors = sum_over_ranks(world, [float(stops), float(error is not None)])
    if num_errors:
        raise next(failed for failed in gather_objects(world, error) if failed)
    return num_stops > 0


def update_best(run: Run) -> None:
    """Update the best score, or count the evaluations without a better one. The same on all ranks.

    The save that follows writes best/.
    """
    state, spec = run.state, run.best_metric
    score = state.scores[spec.key]
    best_score = state.best["score"] if state.best is not None else None
    # a score that was not finite is null in state.json, and anything is better
    if best_score is not None and math.isfinite(best_score):
        is_better = score > best_score if spec.higher_is_better else score < best_score
        if not is_better:
            state.evaluations_since_best += 1
            state.out_of_patience = 0 < run.config.patience <= state.evaluations_since_best
            return
    state.best = {
        "step": state.step,
        "metric": spec.key,
        "score": score,
        "scores": state.scores,
    }
    state.evaluations_since_best = 0
