"""`models download`: fetch released weights into the hub's cache."""

from visionloop.bin.model_zoo.listing import find_model
from visionloop.engine.errors import UserError
from visionloop.tasks.huggingface.hub import HubOffline


def run_download(name: str, task: str | None) -> None:
    """Fetch config, processor and safetensors of a model, as `train` would; print the folder.

    Raises UserError for a model without released weights, and if the hub cannot be reached.
    """
    zoo, model = find_model(name, task)
    if not zoo.is_released(model):
        raise UserError(
            f"{name}: an architecture without released weights, nothing to download",
            field="name",
        )
    try:
        folder = zoo.model_names.fetch(name, model.model_id)
    except HubOffline as error:
        hint = "run this on a machine with a network and copy the hub's cache (HF_HOME) here"
        raise UserError(
            f"{name}: {model.model_id} is not on this machine and {error.why}; {hint}",
            code="offline",
            field="name",
        ) from None
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    print(f"{model.model_id}: {size / 1e6:.0f} MB in {folder}")
