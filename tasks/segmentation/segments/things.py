"""Things and stuff: the classes of a model whose objects are counted one by one, and the others.

transformers has no place for it: `save` writes `is_thing` into config.json, a list of 0 and 1 in
order of class id, which `from_pretrained` reads back. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from visionloop.engine.errors import UserError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# in order of id: 80 things, then 53 classes of stuff (panoptic_coco_categories.json of panopticapi)
COCO_CLASSES, COCO_THINGS = 133, 80
# classes of stuff among the 150 of ADE20K (datasets/ade20k_panoptic.py of tue-mps/eomt)
ADE20K_CLASSES = 150
ADE20K_STUFF = {
    *(0, 1, 2, 3, 4, 5, 6, 9, 11, 13, 16, 17, 21, 25, 26, 28, 29, 34, 40, 46, 48, 51, 52, 54, 59),
    *(60, 61, 63, 68, 77, 79, 84, 91, 94, 96, 99, 100, 101, 105, 106, 109, 113, 114, 117, 122),
    *(128, 131, 140, 141, 145),
}


def read_is_thing(config: PretrainedConfig, folder: str) -> tuple[bool, ...]:
    """Return whether each class of a trained model is of things, [K].

    Released models do not say it: those of COCO and ADE20K are known by their number of classes.

    Args:
        config: of the model.
        folder: for messages.

    Raises:
        UserError: the model does not say it and is no known one.
    """
    count, stated = config.num_labels, stated_things(config)
    if stated is not None:
        return stated
    flags = getattr(config, "is_thing", None)
    if flags is None and count == COCO_CLASSES:
        return tuple(i < COCO_THINGS for i in range(count))
    if flags is None and count == ADE20K_CLASSES:
        return tuple(i not in ADE20K_STUFF for i in range(count))
    given = "no is_thing" if flags is None else f"is_thing {flags}"
    raise UserError(
        f"--model {folder}: config.json has {given}, expected a list of {count} numbers, 1 for a "
        "class of things and 0 for stuff",
        field="model",
        file=folder,
    )


def stated_things(config: PretrainedConfig) -> tuple[bool, ...] | None:
    """Return what config.json says of each class, [K]; None where it says nothing valid."""
    flags = getattr(config, "is_thing", None)
    if not isinstance(flags, list) or len(flags) != config.num_labels:
        return None
    return tuple(map(bool, flags)) if all(flag in (0, 1) for flag in flags) else None


def write_is_thing(config: PretrainedConfig, is_thing: Sequence[bool]) -> None:
    """Write the flags into the config of a model, which `save_pretrained` saves."""
    config.is_thing = [int(flag) for flag in is_thing]
