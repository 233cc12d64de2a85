"""What tasks and scores are called. A task that is not among the four is shown by its keys."""

from dataclasses import asdict

from visionloop.bin.commands.cli import heavy_imports
from visionloop.bin.model_zoo.listing import TABLES


def task_facts(name, keys):
    """{"name", "label", "primary", "metrics": [{"key", "label", "format", "higher_is_better", "description"}]} of a task.

    name: as in settings.json, None where it is not known; keys: of all scores that are to be shown;
    the first known one stands first.
    """
    table = next((table for table in TABLES if table.command == name), None)
    if table is None:
        metrics = [plain_metric(key) for key in keys]
        return {
            "name": name,
            "label": name.replace("_", " ") if name else "task not known",
            "primary": None,
            "metrics": metrics,
        }
    # the specs stand beside code that computes, so this imports torch: a few seconds
    with heavy_imports():
        known = {spec.key: asdict(spec) for spec in table.load_metrics()}
    metrics = [row for key, row in known.items() if key in keys] + [
        related_metric(key, known) for key in keys if key not in known
    ]
    return {
        "name": name,
        "label": table.label["en"],
        "primary": table.primary_metric,
        "metrics": metrics,
    }


def plain_metric(key):
    """A score of which nothing but the key is known. higher_is_better: None, it cannot be told."""
    return {
        "key": key,
        "label": key.replace("_", " "),
        "format": "float",
        "higher_is_better": None,
        "description": "",
    }


def related_metric(key, known):
    """A score that a run adds to the table, such as `miou_level_0`: it is shown as the one that its key begins with."""
    begins = [row for name, row in known.items() if key.startswith(f"{name}_")]
    if not begins:
        return plain_metric(key)
    longest = max(begins, key=lambda row: len(row["key"]))
    return plain_metric(key) | {
        "format": longest["format"],
        "higher_is_better": longest["higher_is_better"],
    }
