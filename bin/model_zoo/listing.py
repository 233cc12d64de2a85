"""`models list`, `show` and `tasks`."""

import json
import textwrap
import unicodedata
from dataclasses import asdict

from visionloop.engine.config.suggest import did_you_mean
from visionloop.engine.errors import UserError
from visionloop.tasks.classification.model_zoo import TABLE as CLASSIFICATION
from visionloop.tasks.detection.model_zoo import TABLE as DETECTION
from visionloop.tasks.model_zoo import CHOSEN
from visionloop.tasks.segmentation.model_zoo import TABLE as SEGMENTATION
from visionloop.tasks.super_resolution.model_zoo import TABLE as SUPER_RESOLUTION

# The four tables in one, and how a name finds its model in them. No torch here.

TABLES = (CLASSIFICATION, DETECTION, SEGMENTATION, SUPER_RESOLUTION)


def tables_of(task):
    """The tables of `--task`, all of them for None. Raises UserError for a task that is none of them."""
    if task is None:
        return TABLES
    wanted = task.replace("-", "_")
    found = tuple(table for table in TABLES if wanted in (table.value, table.command))
    if not found:
        names = [table.value for table in TABLES]
        raise UserError(
            f"--task {task}: expected one of {', '.join(names)}{did_you_mean(wanted, names)}",
            field="task",
        )
    return found


def all_models(task=None):
    """(table, model) of every row: the chosen models first, then task by task."""
    rows = [(table, model) for table in tables_of(task) for model in table.models]
    return sorted(
        rows, key=lambda row: (row[1].priority != CHOSEN, TABLES.index(row[0]), row[1].priority)
    )


def find_model(name, task=None):
    """(table, model) of a name that `--model` knows. Raises UserError when no task knows it, or several do."""
    tables = tables_of(task)
    found = [(table, model) for table in tables if (model := table.find(name))]
    if not found:
        known = sorted({known for table in tables for known in table.registry.names()})
        raise UserError(
            f"{name}: not in the table, which `list` prints{did_you_mean(name, known)}",
            field="name",
        )
    if len(found) > 1:
        raise UserError(
            f"{name}: a model of several tasks; add --task {' or '.join(table.command for table, _ in found)}",
            field="task",
        )
    return found[0]


UNKNOWN = "not measured"
WIDTH = 120


def run_list(task, *, as_json):
    """Print every row of the tables, a line each or all of it as json."""
    rows = [table.row(model) for table, model in all_models(task)]
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
                best_known(row),
                released,
            )
        )
    print("\n".join(columns(cells)))


def run_show(name, task, *, as_json):
    """Print one row. Raises UserError for a name that no table, or more than one, knows."""
    table, model = find_model(name, task)
    row = table.row(model)
    if as_json:
        print(json.dumps(row, ensure_ascii=False))
        return
    facts = [
        (key, show_value(key, value))
        for key, value in row.items()
        if key not in ("sources", "use_cases")
    ]
    if not row["pretrained_available"]:
        facts = [
            (key, "-" if key in ("performance", "weights_license") else text) for key, text in facts
        ]
    facts += [
        ("use case", f"{case['title']}: {case['description']} {show_scores(case)}")
        for case in row["use_cases"]
    ]
    facts += [(f"source of {key}", text) for key, text in row["sources"].items()]
    width = max(len(key) for key, _ in facts)
    for key, text in facts:
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


def run_tasks(*, as_json):
    """Print the tasks."""
    if as_json:
        print(json.dumps([table.as_json() for table in TABLES], ensure_ascii=False))
        return
    cells = [("task", "English", "Korean", "primary score", "data")]
    cells += [
        (t.value, t.label["en"], t.label["ko"], t.primary_metric, "  ".join(t.data_layout))
        for t in TABLES
    ]
    print("\n".join(columns(cells)))


def show_value(key, value):
    """A value of a row in a line of text."""
    if key == "upscale_factor" and value is None:
        return "-"
    if value is None:
        return "not known" if key == "weights_license" else UNKNOWN
    if key == "params":
        return f"{value} ({show_count(value)})"
    if key == "performance":
        return "; ".join(f"{dataset}: {show_metrics(scores)}" for dataset, scores in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return (", ".join(value) or "-") if isinstance(value, list) else str(value)


def show_scores(case):
    """Where a use case was measured, and what it gave."""
    before, after = (show_metrics(case["metrics"][when]) for when in ("before", "after"))
    return f"Data: {case['dataset']}. Before: {before}; after: {after}."


def show_metrics(scores):
    """`key 0.813, key 33.67`."""
    return ", ".join(f"{key} {value:g}" for key, value in scores.items()) if scores else UNKNOWN


def best_known(row):
    """The published score of a row, with its dataset."""
    return UNKNOWN if row["performance"] is None else show_value("performance", row["performance"])


def show_count(number):
    """A number of parameters: 86.6 M."""
    return f"{number / 1e6:.1f} M" if number < 999.5e6 else f"{number / 1e9:.2f} B"


def columns(rows):
    """Lines of cells, left-aligned."""
    widths = [max(map(places, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell + " " * (width - places(cell)) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]


def places(text):
    """Columns of a terminal that a text takes: two for each Korean syllable."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


# `models metrics`: what scores are called, how they are printed, and which two of each task matter
# most.


def run_metrics(*, as_json):
    """Print {task type: {primary, best, metrics}}, or a line for each score."""
    found = {table.value: metrics_of(table) for table in TABLES}
    if as_json:
        print(json.dumps(found))
        return
    cells = [("task", "key", "label", "format", "better", "", "meaning")]
    for task, scores in found.items():
        for row in scores["metrics"]:
            marks = ", ".join(mark for mark in ("primary", "best") if scores[mark] == row["key"])
            better = "higher" if row["higher_is_better"] else "lower"
            cells.append(
                (task, row["key"], row["label"], row["format"], better, marks, row["description"])
            )
    print("\n".join(columns(cells)))


def metrics_of(table):
    """{"primary", "best", "metrics"} of a task; best: what picks best/ unless --best-metric says otherwise."""
    specs = table.load_metrics()
    return {
        "primary": table.primary_metric,
        "best": specs[0].key,
        "metrics": [asdict(spec) for spec in specs],
    }
