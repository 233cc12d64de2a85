"""`evaluate`, the same for every task: scores of a trained model or of saved predictions."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from visionloop.bin.commands.operating_point import check_operating_point, store_operating_point
from visionloop.engine.checkpoints.files import finite
from visionloop.engine.config.options import flag_of
from visionloop.engine.data.forkserver import start_fork_server
from visionloop.engine.distributed import World, pick_device
from visionloop.engine.errors import UserError
from visionloop.engine.evaluation.bootstrap import FEW_IMAGES, score_intervals
from visionloop.engine.evaluation.evaluate import evaluate_dataset
from visionloop.engine.logging.console import class_table, show
from visionloop.engine.metric import Metric
from visionloop.engine.task import Task
from visionloop.engine.types import JsonObject, SampleDataset, Scores, TaskModule


@dataclass(frozen=True)
class EvaluateOptions:
    """The options of `evaluate`: either a model or saved predictions.

    settings: {name: value} of the task's own, for `Task.load_trained`.
    """

    model: str | None
    predictions: str | None
    data: str
    split: str
    val_split: float
    output: str | None
    save_predictions: str | None
    operating_point: str | None
    batch_size: int
    workers: int
    device: str | None
    as_json: bool
    settings: JsonObject


def run_evaluate(task_class: type[Task], options: EvaluateOptions) -> None:
    """Score the model or the predictions and print a table or one json object.

    Files are written for --output and --save-predictions, and --operating-point changes the folder
    of the model. Raises UserError for options that exclude one another and for what the task cannot
    read.
    """
    check_options(task_class, options)
    if options.predictions:
        task, metric = task_class.score_saved_predictions(
            options.predictions, data=options.data, split=options.split
        )
    else:
        task, metric = score_model(task_class, options)
    scores, per_class = metric.compute(), task.per_class_scores(metric)
    if options.output:
        write_scores(task, metric, scores, per_class, Path(options.output))
    chosen = []
    if options.operating_point:
        assert options.model is not None
        chosen = store_operating_point(task, metric, options.operating_point, Path(options.model))
    if options.as_json:
        print("\n".join(chosen), end="\n" if chosen else "", file=sys.stderr)
        print(json.dumps(finite(scores)))
        return
    intervals = score_intervals(metric) if len(metric) < FEW_IMAGES else {}
    lines = score_table(task, scores, intervals, task.reference_scores(metric), len(metric))
    print("\n".join([*lines, *class_table(task.metrics[0], per_class), *chosen]))


def check_options(task_class: type[Task], options: EvaluateOptions) -> None:
    """Raise a UserError for options that exclude one another and for wrong file names."""
    model, predictions, save = options.model, options.predictions, options.save_predictions
    if options.output and Path(options.output).suffix != ".json":
        why = "expected a file name that ends in .json"
        raise UserError(f"--output {options.output}: {why}", field="output")
    if bool(model) == bool(predictions):
        given = "both are given" if model else "none is given"
        raise UserError(f"--model, --predictions: expected one of the two, {given}", field="model")
    if predictions and save:
        why = "needs --model; those of --predictions are in a file already"
        raise UserError(f"--save-predictions: {why}", field="save_predictions")
    if predictions and options.val_split:
        why = "needs --model; score predictions against a data folder with a split of its own"
        raise UserError(f"--val-split: {why}", field="val_split")
    if predictions and options.settings:
        name = next(iter(options.settings))
        raise UserError(f"{flag_of(name)}: needs --model", field=name)
    if options.operating_point:
        check_operating_point(task_class, options.operating_point, model=model, split=options.split)
    suffix = task_class.saved_predictions_suffix
    if save and Path(save).suffix != suffix:
        why = f"expected a file name that ends in {suffix}"
        if not suffix:
            why = f"predictions of {task_class.name} cannot be saved"
        raise UserError(f"--save-predictions {save}: {why}", field="save_predictions")


def score_model(task_class: type[Task], options: EvaluateOptions) -> tuple[Task, Metric]:
    """Score the model on the whole split."""
    assert options.model is not None
    if options.workers:
        # before the GPU is used, beside whose threads a worker must not be forked
        start_fork_server()
    task, module = task_class.load_trained(
        options.model, data=options.data, val_split=options.val_split, **options.settings
    )
    task.keep_predictions = bool(options.save_predictions)
    dataset = task.build_eval_dataset(options.split)
    metric = evaluate_with_progress(
        task,
        module,
        dataset,
        batch_size=options.batch_size,
        workers=options.workers,
        device=options.device,
    )
    if options.save_predictions:
        path = Path(options.save_predictions)
        path.parent.mkdir(parents=True, exist_ok=True)
        task.save_scored_predictions(metric, dataset, path)
    return task, metric


def evaluate_with_progress(
    task: Task,
    module: TaskModule,
    dataset: SampleDataset,
    *,
    batch_size: int,
    workers: int,
    device: str | None,
    description: str = "evaluating",
) -> Metric:
    """Evaluate a model on all images of a dataset, on one device, with a progress bar.

    Args:
        task: the task.
        module: its model, on any device.
        dataset: of the images.
        batch_size: images of a forward pass.
        workers: processes that read images.
        device: name of the device; None: the fastest one.
        description: text beside the progress bar.
    """
    world = World(0, 0, 1, pick_device(device))
    with tqdm(total=len(dataset), desc=description, unit="img", disable=None, leave=False) as bar:
        metric = evaluate_dataset(
            task,
            module.to(world.device),
            dataset,
            batch_size=batch_size,
            workers=workers,
            world=world,
            advance=bar.update,
        )
    assert metric is not None, "an evaluation that was stopped"
    return metric


def score_table(
    task: Task,
    scores: Scores,
    intervals: Mapping[str, tuple[float, float]],
    reference: Scores,
    num_images: int,
) -> list[str]:
    """Return the lines of a table: each score with its 95 % interval, if there is one.

    reference: {name: score} of trivial predictors, which follow.
    """
    rows = []
    for spec in task.metrics:
        if spec.key not in scores:
            continue
        low_high = intervals.get(spec.key)
        interval = f"{spec.show(low_high[0])} to {spec.show(low_high[1])}" if low_high else ""
        rows.append((spec.label, show(spec, scores[spec.key]), interval))
    rows += [(label, show(task.metrics[0], value), "") for label, value in reference.items()]
    width = max(len(label) for label, _, _ in rows)
    heading = f"{num_images} images"
    if intervals:
        heading += ", 95 % intervals by bootstrap over images"
    return [heading] + [
        f"{label:<{width}}  {value:>9}  {interval}".rstrip() for label, value, interval in rows
    ]


def write_scores(
    task: Task, metric: Metric, scores: Scores, per_class: Mapping[str, Scores], path: Path
) -> None:
    """Write the scores as json.

    Beside them the scores of each class as STEM_per_class.json, and charts as STEM_TAG.png.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(finite(scores), indent=1) + "\n")
    if per_class:
        per_class_path = path.with_name(f"{path.stem}_per_class.json")
        per_class_path.write_text(json.dumps(finite(per_class), indent=1) + "\n")
        print(f"per_class: {per_class_path}", file=sys.stderr)
    for tag, image in task.draw_scores(metric).items():
        image_path = path.with_name(f"{path.stem}_{tag}.png")
        Image.fromarray(image).save(image_path)
        print(f"{tag}: {image_path}", file=sys.stderr)
