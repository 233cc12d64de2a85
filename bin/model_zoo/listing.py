"""`models list`, `show`, `tasks` and `metrics`. Imports no torch."""

import json
import textwrap
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict

from visionloop.engine.config.suggest import did_you_mean
from visionloop.engine.errors import UserError
from visionloop.engine.types import JsonObject, Scores
from visionloop.tasks.classification.model_zoo import MODEL_ZOO as CLASSIFICATION
from visionloop.tasks.detection.model_zoo import MODEL_ZOO as DETECTION
from visionloop.tasks.model_zoo import CHOSEN, START, Model, ModelZoo
from visionloop.tasks.segmentation.instance.model_zoo import MODEL_ZOO as INSTANCE_SEGMENTATION
from visionloop.tasks.segmentation.panoptic.model_zoo import MODEL_ZOO as PANOPTIC_SEGMENTATION
from visionloop.tasks.segmentation.semantic.model_zoo import MODEL_ZOO as SEGMENTATION
from visionloop.tasks.super_resolution.model_zoo import MODEL_ZOO as SUPER_RESOLUTION

MODEL_ZOOS = (
    CLASSIFICATION,
    DETECTION,
    SEGMENTATION,
    INSTANCE_SEGMENTATION,
    PANOPTIC_SEGMENTATION,
    SUPER_RESOLUTION,
)
UNKNOWN = "not measured"
WIDTH = 120  # columns of the text of `show`


def zoos_of(task: str | None) -> tuple[ModelZoo, ...]:
    """Return the model zoo of `--task`, or all for None. Raises UserError for an unknown task."""
    if task is None:
        return MODEL_ZOOS
    name = task.replace("-", "_")
    zoos = tuple(zoo for zoo in MODEL_ZOOS if name in (zoo.value, zoo.command))
    if not zoos:
        names = [zoo.value for zoo in MODEL_ZOOS]
        raise UserError(
            f"--task {task}: expected one of {', '.join(names)}{did_you_mean(name, names)}",
            field="task",
        )
    return zoos


def all_models(task: str | None = None) -> list[tuple[ModelZoo, Model]]:
    """Return (model zoo, model) of every model: the recommended ones first, then by task."""
    rows = [(zoo, model) for zoo in zoos_of(task) for model in zoo.models]
    return sorted(
        rows, key=lambda row: (row[1].priority != CHOSEN, MODEL_ZOOS.index(row[0]), row[1].priority)
    )


def find_model(name: str, task: str | None = None) -> tuple[ModelZoo, Model]:
    """Return (model zoo, model) of a `--model` name, of the task that it is not only a start for.

    Raises UserError for an unknown name, and for one that several tasks know alike.
    """
    zoos = zoos_of(task)
    matches = [(zoo, model) for zoo in zoos if (model := zoo.find(name))]
    if not matches:
        valid_names = sorted({other for zoo in zoos for other in zoo.model_names.names()})
        raise UserError(
            f"{name}: not in the model zoo, which `list` prints{did_you_mean(name, valid_names)}",
            field="name",
        )
    own = [match for match in matches if match[1].priority != START] or matches
    if len(own) > 1:
        tasks = " or ".join(zoo.command for zoo, _ in own)
        raise UserError(
            f"{name}: a model of several tasks; add --task {tasks}",
            field="task",
        )
    return own[0]


def run_list(task: str | None, *, as_json: bool) -> None:
    """Print a line for each model, or everything as JSON."""
    rows = [zoo.row(model) for zoo, model in all_models(task)]
    if as_json:
        print(json.dumps(rows, ensure_ascii=False))
        return
    cells = [("model", "task", "weights", "input", "score", "released")]
    for row in rows:
        released = "yes" if row["pretrained_available"] else "no"
        cells.append(
            (
                row["model_id"],
                row["task_type"],
                show_count(row["params"]),
                f"{row['input_size']} px",
                published_score(row),
                released,
            )
        )
    print("\n".join(columns(cells)))


def run_show(name: str, task: str | None, *, as_json: bool) -> None:
    """Print everything about one model, with sources. Raises UserError for an unknown name."""
    zoo, model = find_model(name, task)
    row = zoo.row(model)
    if as_json:
        print(json.dumps(row, ensure_ascii=False))
        return
    lines = [
        (key, show_value(key, value))
        for key, value in row.items()
        if key not in ("sources", "use_cases")
    ]
    if not row["pretrained_available"]:
        lines = [
            (key, "-" if key in ("performance", "weights_license") else text) for key, text in lines
        ]
    lines += [
        ("use case", f"{case['title']}: {case['description']} {show_scores(case)}")
        for case in row["use_cases"]
    ]
    lines += [(f"source of {key}", text) for key, text in row["sources"].items()]
    width = max(len(key) for key, _ in lines)
    for key, text in lines:
        lead = f"{key.replace('_', ' '):<{width}}  "
        print(
            textwrap.fill(
                text,
                WIDTH,
                initial_indent=lead,
                subsequent_indent=" " * len(lead),
                break_on_hyphens=False,
            )
        )


def run_tasks(*, as_json: bool) -> None:
    """Print the tasks."""
    if as_json:
        print(json.dumps([zoo.as_json() for zoo in MODEL_ZOOS], ensure_ascii=False))
        return
    cells = [("task", "English", "Korean", "primary score", "data")]
    cells += [
        (t.value, t.label["en"], t.label["ko"], t.primary_metric, "  ".join(t.data_layout))
        for t in MODEL_ZOOS
    ]
    print("\n".join(columns(cells)))


def show_value(key: str, value: object) -> str:
    """Format a value of a model for a line of text."""
    if key == "upscale_factor" and value is None:
        return "-"
    if value is None:
        return "not known" if key == "weights_license" else UNKNOWN
    if key == "params" and isinstance(value, int):
        return f"{value} ({show_count(value)})"
    if key == "performance" and isinstance(value, dict):
        return "; ".join(f"{dataset}: {show_metrics(scores)}" for dataset, scores in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return (", ".join(value) or "-") if isinstance(value, list) else str(value)


def show_scores(case: JsonObject) -> str:
    """Return the dataset and the scores of a use case."""
    before, after = (show_metrics(case["metrics"][when]) for when in ("before", "after"))
    return f"Data: {case['dataset']}. Before: {before}; after: {after}."


def show_metrics(scores: Scores | None) -> str:
    """Return `key 0.813, key 33.67`."""
    return ", ".join(f"{key} {value:g}" for key, value in scores.items()) if scores else UNKNOWN


def published_score(row: JsonObject) -> str:
    """Return the published score of a model, with its dataset."""
    return UNKNOWN if row["performance"] is None else show_value("performance", row["performance"])


def show_count(number: int) -> str:
    """Return a number of parameters as `86.6 M`."""
    return f"{number / 1e6:.1f} M" if number < 999.5e6 else f"{number / 1e9:.2f} B"


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Format rows of cells as left-aligned lines."""
    widths = [max(map(places, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell + " " * (width - places(cell)) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]


def places(text: str) -> int:
    """Return the terminal columns of a text: two for each Korean syllable."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def run_metrics(*, as_json: bool) -> None:
    """Print a line for each score, or {task type: {primary, best, metrics}} as JSON."""
    metrics = {zoo.value: metrics_of(zoo) for zoo in MODEL_ZOOS}
    if as_json:
        print(json.dumps(metrics))
        return
    cells = [("task", "key", "label", "format", "better", "", "meaning")]
    for task, scores in metrics.items():
        for row in scores["metrics"]:
            marks = ", ".join(mark for mark in ("primary", "best") if scores[mark] == row["key"])
            better = "higher" if row["higher_is_better"] else "lower"
            cells.append(
                (task, row["key"], row["label"], row["format"], better, marks, row["description"])
            )
    print("\n".join(columns(cells)))


def metrics_of(zoo: ModelZoo) -> JsonObject:
    """Return {"primary", "best", "metrics"}; best: the score that picks best/ by default."""
    return {
        "primary": zoo.primary_metric,
        "best": zoo.metrics[0].key,
        "metrics": [asdict(spec) for spec in zoo.metrics],
    }
