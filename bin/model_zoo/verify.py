"""`models verify`: every row builds, and has as many parameters as the table says. Needs no network and no memory for weights."""

import json

import torch

from visionloop.bin.model_zoo.listing import all_models, columns
from visionloop.engine.errors import DEFECT, FINISHED

TOLERANCE = 0.01


def run_verify(task, *, as_json):
    """Print a line for each model. Returns the exit code: 1 where a model does not build or a count is more than 1 % off."""
    rows = [check(table, model) for table, model in all_models(task)]
    if as_json:
        print(json.dumps(rows))
    else:
        cells = [("model", "task", "table", "counted", "")]
        cells += [
            (
                row["model_id"],
                row["task_type"],
                str(row["params"]),
                str(row["counted"]),
                row["problem"] or "ok",
            )
            for row in rows
        ]
        print("\n".join(columns(cells)))
    return DEFECT if any(row["problem"] for row in rows) else FINISHED


def check(table, model):
    """{"model_id", "task_type", "params", "counted", "problem"}; problem: None when the count is right."""
    problem = None
    try:
        counted = count_parameters(table.build_network, model)
    except (
        ValueError,
        TypeError,
        KeyError,
        RuntimeError,
    ) as error:  # what the library says of a config that it cannot build
        counted, problem = None, f"does not build: {str(error).splitlines()[0]}"
    else:
        if abs(counted - model.params) > TOLERANCE * model.params:
            problem = f"{100 * (counted / model.params - 1):+.1f} % off"
    return {
        "model_id": model.model_id,
        "task_type": table.value,
        "params": model.params,
        "counted": counted,
        "problem": problem,
    }


def count_parameters(build_network, model):
    """The number of weights of a row's network, shared ones once."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_network(model).parameters())
