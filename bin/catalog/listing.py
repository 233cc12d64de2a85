"""`models list`, `show` and `tasks`."""

import json
import textwrap
import unicodedata

from visionloop.bin.catalog.tables import TABLES, all_models, find_model

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
        cells.append((row["model_id"], row["task_type"], show_count(row["params"]), f"{row['input_size']} px", best_known(row), released))
    print("\n".join(columns(cells)))


def run_show(name, task, *, as_json):
    """Print one row. Raises UserError for a name that no table, or more than one, knows."""
    table, model = find_model(name, task)
    row = table.row(model)
    if as_json:
        print(json.dumps(row, ensure_ascii=False))
        return
    facts = [(key, show_value(key, value)) for key, value in row.items() if key not in ("sources", "use_cases")]
    if not row["pretrained_available"]:
        facts = [(key, "-" if key in ("performance", "weights_license") else text) for key, text in facts]
    facts += [("use case", f"{case['title']}: {case['description']} {show_scores(case)}") for case in row["use_cases"]]
    facts += [(f"source of {key}", text) for key, text in row["sources"].items()]
    width = max(len(key) for key, _ in facts)
    for key, text in facts:
        lead = f"{key.replace('_', ' '):<{width}}  "
        print(textwrap.fill(text, WIDTH, initial_indent=lead, subsequent_indent=" " * len(lead), break_on_hyphens=False))


def run_tasks(*, as_json):
    """Print the tasks."""
    if as_json:
        print(json.dumps([table.as_json() for table in TABLES], ensure_ascii=False))
        return
    cells = [("task", "English", "Korean", "primary score", "data")]
    cells += [(t.value, t.label["en"], t.label["ko"], t.primary_metric, "  ".join(t.data_layout)) for t in TABLES]
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
    """The published score of a row, with its data set."""
    return UNKNOWN if row["performance"] is None else show_value("performance", row["performance"])


def show_count(number):
    """A number of parameters: 86.6 M."""
    return f"{number / 1e6:.1f} M" if number < 999.5e6 else f"{number / 1e9:.2f} B"


def columns(rows):
    """Lines of cells, left-aligned."""
    widths = [max(map(places, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell + " " * (width - places(cell)) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def places(text):
    """Columns of a terminal that a text takes: two for each Korean syllable."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)
