"""Evaluation: fixed batches over ranks, counts that merge exactly, the bare module, averaged and raw weights."""

import math
from contextlib import nullcontext

import torch

from visionloop.engine.budget import OVER
from visionloop.engine.data.loader import evaluation_loader
from visionloop.engine.data.prefetch import DataError, Prefetcher
from visionloop.engine.distributed import World, broadcast_buffers, gather_objects, sum_over_ranks
from visionloop.engine.errors import UserError
from visionloop.engine.evaluation.bootstrap import FEW_IMAGES, score_intervals
from visionloop.engine.evaluation.record import make_record, write_record
from visionloop.engine.evaluation.samples import (
    choose_samples,
    draw_chosen,
    draw_galleries,
    images_due,
    in_eval_mode,
)


def evaluate(run, task, step):
    """Score the weights at `step`, remember the best, log, record. All ranks; dropped at a batch border when a stop is wanted."""
    with run.clock.measure("evaluation"):
        average = run.ema
        try:
            with average.applied(run.module) if average else nullcontext():
                metric = run_metric(run, task)
                chosen = None if metric is None else show_samples(run, task, metric, step)
            raw_metric = run_metric(run, task) if average and chosen is not None else None
        except UserError as error:  # an unreadable image: the loop saves, then fails with it
            run.failure, run.stopping = error, True
            return
        if chosen is None or (average and raw_metric is None):
            run.stopping = True  # `evaluated_at` stays behind: done first after the resume
            return
        scores = metric.compute()
        run.evaluated_at, run.scores, run.saved_at = (
            step,
            scores,
            None,
        )  # a checkpoint of this step lacks these scores
        keep_best(run, step, scores)
        if run.world.is_main:
            report(
                run, task, step, metric, scores, raw_metric.compute() if average else None, chosen
            )


def run_metric(run, task):
    """The metric of the run's module on its validation images, or None after a stop. All ranks."""
    broadcast_buffers(run.world, run.module)
    return evaluate_dataset(
        task,
        run.module,
        run.val,
        batch_size=run.config.eval_batch_size,
        workers=run.config.workers,
        world=run.world,
        stop=run.stop,
    )


def show_samples(run, task, metric, step):
    """{"fixed": [Shown], "worst": [Shown]} on the main rank, with images where they are due, {} on the others; None after a stop.

    All ranks: the main one draws while the others wait.
    """
    chosen = {}
    if run.world.is_main:
        chosen = choose_samples(task, metric, run.val)
        config = run.config
        if run.left == OVER or images_due(step, config.eval_every, config.steps, config.batch_size):
            chosen = draw_chosen(run, task, chosen)
    (stops,) = sum_over_ranks(run.world, [float(chosen is None)])
    return None if stops else chosen


def report(run, task, step, metric, scores, raw, chosen):
    """Tell of an evaluation: console, metrics.jsonl, TensorBoard, and its record. Main rank only."""
    intervals = score_intervals(metric) if len(metric) < FEW_IMAGES else {}
    reference = task.reference_scores(metric)
    run.log.scores(
        step, scores, raw=raw, intervals=intervals, train_loss=run.train_loss, reference=reference
    )
    run.log.images(step, task.draw_scores(metric) | draw_galleries(task, chosen))
    per_class = task.per_class_scores(metric)
    run.log.classes(step, task.metrics[0], per_class)
    run.log.status.update(best=run.best)
    record = make_record(
        task, metric, step=step, epoch=run.data.order.epoch_of(step), scores=scores, raw=raw, intervals=intervals, reference=reference,
        per_class=per_class, chosen=chosen,
    )  # fmt: skip
    unwritten = write_record(run.output, record, chosen)
    if unwritten:
        run.log.warn(unwritten)


def never():
    return False


def evaluate_dataset(
    task, module, dataset, *, batch_size, workers=0, world=None, stop=never, advance=None
):
    """The task's metric of `module` on every sample of `dataset`, once, in fp32; None when `stop()` came true. All ranks.

    Batch j goes whole to rank j mod W, so no image counts twice and the result is the same on any
    number of ranks. advance(n): called after each batch, with its size. Raises UserError for a
    image that cannot be read.
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
    fetcher = Prefetcher(loader, ahead=2, pin=world.device.type == "cuda")
    metric, error = task.build_metric(), None
    own_rounds, rounds = len(loader), math.ceil(math.ceil(len(dataset) / batch_size) / world.size)
    try:
        with in_eval_mode(module):
            for i in range(rounds):
                fetched = fetcher.fetch(1, stop) if i < own_rounds else []
                wanted = fetched is None or stop()
                if fetched and isinstance(fetched[0][0], DataError):
                    error, fetched = fetched[0][0], []
                # all ranks leave at the same batch border
                stops, errors = sum_over_ranks(world, [float(wanted), float(error is not None)])
                if errors:
                    error = next(found for found in gather_objects(world, error) if found)
                    raise error.as_user_error()
                if stops:
                    return None
                for host_batch, _ in fetched:
                    batch = host_batch.to(world.device)
                    with torch.no_grad():
                        predictions = task.predict(module, batch)
                    metric.update(predictions, batch)
                    if advance:
                        advance(len(host_batch))
    finally:
        fetcher.close()
    metric.merge(gather_objects(world, metric.state()))
    return metric


def keep_best(run, step, scores):
    """Remember a better score; count evaluations without one. All ranks decide alike. The save that follows writes best/."""
    spec = run.best_metric
    value = scores[spec.key]
    sign = 1 if spec.higher_is_better else -1
    # a score that was not finite is null in state.json, and anything is better
    held = (
        None
        if run.best is None or run.best["score"] is None or not math.isfinite(run.best["score"])
        else run.best["score"]
    )
    if held is not None and not sign * value > sign * held:
        run.evaluations_since_best += 1
        run.out_of_patience = 0 < run.config.patience <= run.evaluations_since_best
        return
    run.best, run.evaluations_since_best = (
        {"step": step, "metric": spec.key, "score": value, "scores": scores},
        0,
    )
