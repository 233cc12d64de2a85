"""`models verify`: build every model on the meta device and count its parameters.

Needs neither a network nor memory for weights.
"""

import json
from collections.abc import Callable

import torch
from torch import nn

from visionloop.bin.model_zoo.listing import all_models, columns
from visionloop.engine.errors import DEFECT, FINISHED
from visionloop.engine.types import JsonObject
from visionloop.tasks.model_zoo import Model, ModelZoo

TOLERANCE = 0.01  # of the stated number of parameters


def run_verify(task: str | None, *, as_json: bool) -> int:
    """Print a line for each model.

    Returns the exit code: 1 if a model does not build or a count is more than 1 % off.
    """
    rows = [verify_model(zoo, model) for zoo, model in all_models(task)]
    if as_json:
        print(json.dumps(rows))
    else:
        cells = [("model", "task", "stated", "counted", "")]
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


def verify_model(zoo: ModelZoo, model: Model) -> JsonObject:
    """Return {"model_id", "task_type", "params", "counted", "problem"}; problem may be None."""
    counted, problem = None, None
    try:
        counted = count_parameters(zoo.build_network, model)
    # what transformers raises for a config that it cannot build
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        problem = f"does not build: {str(error).splitlines()[0]}"
    else:
        if abs(counted - model.params) > TOLERANCE * model.params:
            problem = f"{100 * (counted / model.params - 1):+.1f} % off"
    return {
        "model_id": model.model_id,
        "task_type": zoo.value,
        "params": model.params,
        "counted": counted,
        "problem": problem,
    }


def count_parameters(build_network: Callable[[Model], nn.Module], model: Model) -> int:
    """Count the parameters of a model, tied ones once."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_network(model).parameters())
