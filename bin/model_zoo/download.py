"""`models download`: the weights of a row, into the hub's cache."""

from visionloop.bin.model_zoo.listing import find_model
from visionloop.engine.errors import UserError
from visionloop.tasks.huggingface.hub import HubOffline


def run_download(name, task):
    """Fetch a model's config, processor and safetensors, as `train --model` would, and say where they lie.

    Raises UserError for a model without released weights, and when the hub cannot be asked.
    """
    table, model = find_model(name, task)
    if not table.is_released(model):
        raise UserError(
            f"{name}: an architecture without released weights, there is nothing to download",
            field="name",
        )
    try:
        folder = table.registry.fetch(name, model.model_id)
    except HubOffline as error:
        todo = "run this where there is a network, and copy the hub's cache (HF_HOME) here"
        raise UserError(
            f"{name}: {model.model_id} is not on this machine and {error.why}; {todo}",
            code="offline",
            field="name",
        ) from None
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    print(f"{model.model_id}: {size / 1e6:.0f} MB in {folder}")
