"""Architectures of D-FINE and their released weights: the tables of models.toml.

Imports no torch, since recipes read the table before a model exists.
"""

from visionloop.engine.types import JsonObject
from visionloop.tasks.huggingface.hub import ModelNames
from visionloop.tasks.model_zoo import read_models, released_weights

# name -> (HGNetV2Config fields, DFineConfig fields, side of the training images in pixels)
ARCHITECTURES: dict[str, tuple[JsonObject, JsonObject, int]] = {
    name: (table["backbone"], table["detector"], table["image_size"])
    for name, table in read_models("detection")["architectures"].items()
}
RELEASED = released_weights(read_models("detection"))


def _aliases() -> dict[str, str]:
    """Return {other name: hub id}: ids without their owner, and old ids (dfine_x_coco)."""
    aliases: dict[str, str] = {}
    for hub_id in RELEASED:
        owner, name = hub_id.split("/")
        _, size, data = name.split("-", 2)
        old = f"dfine_{size[0]}_{data.replace('-', '_')}"
        aliases |= dict.fromkeys((name, old, f"{owner}/{old}"), hub_id)
    return aliases


MODEL_NAMES = ModelNames(
    architectures=tuple(ARCHITECTURES),
    default="tiny",
    example="ustc-community/dfine-small-coco",
    aliases=_aliases(),
    architecture_of=RELEASED,
)
