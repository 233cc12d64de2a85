"""`models metrics`: what scores are called, how they are printed, and which two of each task matter most."""

import json
from dataclasses import asdict

from visionloop.bin.catalog.listing import columns
from visionloop.bin.catalog.tables import TABLES


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
            cells.append((task, row["key"], row["label"], row["format"], better, marks, row["description"]))
    print("\n".join(columns(cells)))


def metrics_of(table):
    """{"primary", "best", "metrics"} of a task; best: what picks best/ unless --best-metric says otherwise."""
    specs = table.load_metrics()
    return {"primary": table.primary_metric, "best": specs[0].key, "metrics": [asdict(spec) for spec in specs]}
