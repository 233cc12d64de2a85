"""The four tables in one, and how a name finds its model in them. No torch here."""


from visionloop.engine.errors import UserError
from visionloop.engine.guess import guess
from visionloop.tasks.classification.catalog import TABLE as CLASSIFICATION
from visionloop.tasks.detection.catalog import TABLE as DETECTION
from visionloop.tasks.model_table import CHOSEN
from visionloop.tasks.segmentation.catalog import TABLE as SEGMENTATION
from visionloop.tasks.super_resolution.catalog import TABLE as SUPER_RESOLUTION

TABLES = (CLASSIFICATION, DETECTION, SEGMENTATION, SUPER_RESOLUTION)


def tables_of(task):
    """The tables of `--task`, all of them for None. Raises UserError for a task that is none of them."""
    if task is None:
        return TABLES
    wanted = task.replace("-", "_")
    found = tuple(table for table in TABLES if wanted in (table.value, table.command))
    if not found:
        names = [table.value for table in TABLES]
        raise UserError(f"--task {task}: expected one of {', '.join(names)}{guess(wanted, names)}", field="task")
    return found


def all_models(task=None):
    """(table, model) of every row: the chosen models first, then task by task."""
    rows = [(table, model) for table in tables_of(task) for model in table.models]
    return sorted(rows, key=lambda row: (row[1].priority != CHOSEN, TABLES.index(row[0]), row[1].priority))


def find_model(name, task=None):
    """(table, model) of a name that `--model` knows. Raises UserError when no task knows it, or several do."""
    tables = tables_of(task)
    found = [(table, model) for table in tables if (model := table.find(name))]
    if not found:
        known = sorted({known for table in tables for known in table.catalogue.names()})
        raise UserError(f"{name}: not in the table, which `list` prints{guess(name, known)}", field="name")
    if len(found) > 1:
        raise UserError(f"{name}: a model of several tasks; add --task {' or '.join(table.command for table, _ in found)}", field="task")
    return found[0]
