"""`evaluate`, the same for every task."""

import json
import sys
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from visionloop.engine.checkpoints.files import finite
from visionloop.engine.config.options import flag_of
from visionloop.engine.distributed import World, pick_device
from visionloop.engine.errors import UserError
from visionloop.engine.evaluation.bootstrap import FEW_IMAGES, score_intervals
from visionloop.engine.evaluation.evaluate import evaluate_dataset
from visionloop.engine.logging.console import class_table, show

# Scores in columns, for people.


def score_table(task, scores, intervals, reference, images):
    """Lines: every score with its 95 % interval where there is one, and what a trivial answer would score."""
    rows = []
    for spec in task.metrics:
        if spec.key not in scores:
            continue
        low_high = intervals.get(spec.key)
        shown = f"{spec.show(low_high[0])} to {spec.show(low_high[1])}" if low_high else ""
        rows.append((spec.label, show(spec, scores[spec.key]), shown))
    rows += [(label, show(task.metrics[0], value), "") for label, value in reference.items()]
    width = max(len(label) for label, _, _ in rows)
    lines = [
        f"{images} images" + (", 95 % intervals by bootstrap over images" if intervals else "")
    ]
    return lines + [
        f"{label:<{width}}  {value:>9}  {interval}".rstrip() for label, value, interval in rows
    ]


def run_evaluate(
    task_class,
    *,
    model,
    predictions,
    data,
    split,
    val_split,
    output,
    save_predictions,
    batch_size,
    workers,
    device,
    as_json,
    settings,
):
    """Score `model`, or `predictions` that exist already, on a split of `data`: a table or one json object on stdout, and files.

    settings: {name: value} of the task's own, for `Task.load_trained`.
    """
    if output and Path(output).suffix != ".json":
        raise UserError(
            f"--output {output}: expected a file name that ends in .json", field="output"
        )
    check_sources(task_class, model, predictions, val_split, save_predictions, settings)
    if predictions:
        task, metric = task_class.score_saved_predictions(predictions, data=data, split=split)
    else:
        task, module = task_class.load_trained(model, data=data, val_split=val_split, **settings)
        dataset = task.build_eval_dataset(split)
        metric = score_model(
            task,
            module,
            dataset,
            batch_size=batch_size,
            workers=workers,
            device=pick_device(device),
        )
        if save_predictions:
            Path(save_predictions).parent.mkdir(parents=True, exist_ok=True)
            task.save_scored_predictions(metric, dataset, save_predictions)
    scores, per_class = metric.compute(), task.per_class_scores(metric)
    if output:
        write_scores(task, metric, scores, per_class, Path(output))
    if as_json:
        print(json.dumps(finite(scores)))
        return
    intervals = score_intervals(metric) if len(metric) < FEW_IMAGES else {}
    lines = score_table(task, scores, intervals, task.reference_scores(metric), len(metric))
    print("\n".join(lines + class_table(task.metrics[0], per_class)))


def check_sources(task_class, model, predictions, val_split, save_predictions, settings):
    """Raises UserError unless there is a model or predictions, one of the two, and the options that go with it."""
    if bool(model) == bool(predictions):
        given = "both are given" if model else "none is given"
        raise UserError(f"--model, --predictions: expected one of the two, {given}", field="model")
    if predictions and save_predictions:
        raise UserError(
            "--save-predictions: needs --model; --predictions are in a file already",
            field="save_predictions",
        )
    if predictions and val_split:
        why = "needs --model; score predictions against a data folder with a split of its own"
        raise UserError(f"--val-split: {why}", field="val_split")
    if predictions and settings:
        name = next(iter(settings))
        raise UserError(f"{flag_of(name)}: needs --model", field=name)
    suffix = task_class.saved_predictions_suffix
    if save_predictions and Path(save_predictions).suffix != suffix:
        why = (
            f"expected a file name that ends in {suffix}"
            if suffix
            else f"{task_class.name} has no form for them"
        )
        raise UserError(f"--save-predictions {save_predictions}: {why}", field="save_predictions")


def score_model(task, module, dataset, *, batch_size, workers, device):
    """The task's metric of `module` on the whole dataset, on one device, with a bar."""
    with tqdm(total=len(dataset), desc="evaluating", unit="pic", disable=None, leave=False) as bar:
        world = World(0, 0, 1, device)
        return evaluate_dataset(
            task,
            module.to(device),
            dataset,
            batch_size=batch_size,
            workers=workers,
            world=world,
            advance=bar.update,
        )


def write_scores(task, metric, scores, per_class, path):
    """The scores as json; beside it those of each class as <stem>_per_class.json, and what the task draws as <stem>_<tag>.png."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(finite(scores), indent=1) + "\n")
    if per_class:
        beside = path.with_name(f"{path.stem}_per_class.json")
        beside.write_text(json.dumps(finite(per_class), indent=1) + "\n")
        print(f"per_class: {beside}", file=sys.stderr)
    for tag, image in task.draw_scores(metric).items():
        drawn = path.with_name(f"{path.stem}_{tag}.png")
        Image.fromarray(image).save(drawn)
        print(f"{tag}: {drawn}", file=sys.stderr)
