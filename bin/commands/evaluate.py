"""`evaluate`, the same for every task."""

import json
import sys
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from visionloop.engine.distributed import World, pick_device
from visionloop.engine.errors import UserError
from visionloop.engine.evaluate import evaluate_dataset
from visionloop.engine.intervals import FEW_PICTURES, score_intervals


def run_evaluate(task_class, *, model, data, split, val_split, output, batch_size, workers, device, as_json):
    """Score `model` on a split of `data`: a table or one json object on stdout, and a file."""
    if output and Path(output).suffix != ".json":
        raise UserError(f"--output {output}: expected a file name that ends in .json", field="output")
    task, module = task_class.load_trained(model, data=data, val_split=val_split)
    dataset = task.build_eval_dataset(split)
    device = pick_device(device)
    with tqdm(total=len(dataset), desc="evaluating", unit="pic", disable=None, leave=False) as bar:
        world = World(0, 0, 1, device)
        metric = evaluate_dataset(
            task, module.to(device), dataset, batch_size=batch_size, workers=workers, world=world, advance=bar.update
        )
    scores = metric.compute()
    if output:
        write_scores(task, metric, scores, Path(output))
    if as_json:
        print(json.dumps(scores))
        return
    intervals = score_intervals(metric) if len(metric) < FEW_PICTURES else {}
    print("\n".join(table(task, scores, intervals, task.reference_scores(metric), len(metric))))


def write_scores(task, metric, scores, path):
    """The scores as json, and what the task draws of them beside it as <stem>_<tag>.png."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(scores, indent=1) + "\n")
    for tag, picture in task.draw_scores(metric).items():
        drawn = path.with_name(f"{path.stem}_{tag}.png")
        Image.fromarray(picture).save(drawn)
        print(f"{tag}: {drawn}", file=sys.stderr)


def table(task, scores, intervals, reference, pictures):
    """Lines for people: every score with its 95 % interval where there is one, and what a trivial answer would score."""
    rows = []
    for spec in task.metrics:
        if spec.key not in scores:
            continue
        low_high = intervals.get(spec.key)
        shown = f"{spec.show(low_high[0])} to {spec.show(low_high[1])}" if low_high else ""
        rows.append((spec.label, spec.show(scores[spec.key]), shown))
    rows += [(label, task.metrics[0].show(value), "") for label, value in reference.items()]
    width = max(len(label) for label, _, _ in rows)
    lines = [f"{pictures} pictures" + (", 95 % intervals by bootstrap over pictures" if intervals else "")]
    return lines + [f"{label:<{width}}  {value:>9}  {interval}".rstrip() for label, value, interval in rows]
