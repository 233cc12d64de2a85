"""Meaning of the values in mask files."""

from collections.abc import Sequence

from visionloop.datasets.io.json_columns import show
from visionloop.datasets.io.layout import shorten

IGNORED = 255  # class id of ignored pixels in memory, for any value in the files
NUM_VALUES = 65536  # a mask file has at most 16 bits a pixel

# label ids of the 19 classes of Cityscapes, in the order of their train ids
CITYSCAPES = {
    "road": 7,
    "sidewalk": 8,
    "building": 11,
    "wall": 12,
    "fence": 13,
    "pole": 17,
    "traffic light": 19,
    "traffic sign": 20,
    "vegetation": 21,
    "terrain": 22,
    "sky": 23,
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}
NUM_CITYSCAPES_IDS = 34  # 0 to 33; those without a class are void


def is_value(value: object, text: bool = True) -> bool:
    """Return whether a value is a whole number 0 to 65535.

    Args:
        value: from a json.
        text: accept a number written as text too, as the key of an object is.
    """
    if text and isinstance(value, str):
        return value.isascii() and value.isdigit() and int(value) < NUM_VALUES
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < NUM_VALUES


def read_meaning(
    ids: object, classes: Sequence[str], values: Sequence[int]
) -> tuple[dict[int, int], set[int]]:
    """Return the meaning of the values in mask files.

    Args:
        ids: "ids" of the `classes.json`, or None.
        classes: names in order of id.
        values: of the classes, without "ids".

    Returns:
        ({value in a mask file: class id}, values that are ignored besides ignore_index).

    Raises:
        ValueError: when "ids" is not valid.
    """
    if ids is None:
        return {value: label for label, value in enumerate(values)}, set()
    if ids == "shift":
        return {label + 1: label for label in range(len(classes))}, {0}
    if ids == "cityscapes":
        if set(classes) != set(CITYSCAPES):
            raise ValueError(
                '"ids" is "cityscapes", "classes" must then be its 19 '
                f"({shorten(list(CITYSCAPES))}) or be left out"
            )
        meaning = {CITYSCAPES[name]: label for label, name in enumerate(classes)}
        return meaning, set(range(NUM_CITYSCAPES_IDS)) - set(meaning)
    if not isinstance(ids, dict) or not ids:
        raise ValueError(
            f'"ids" is {show(ids)}, expected {{value: class id}}, "shift" or "cityscapes"'
        )
    meaning = {}
    for key, target in ids.items():
        label = classes.index(target) if target in classes else target
        if not is_value(key):
            raise ValueError(
                f'"ids" has the key {key!r}, expected values of the masks, 0 to {NUM_VALUES - 1}'
            )
        if label in (None, IGNORED):
            continue
        if not is_value(label, text=False) or label >= len(classes):
            raise ValueError(
                f'"ids" {key!r} is {show(target)}, expected a class id 0 to {len(classes) - 1}, '
                "a class or null"
            )
        meaning[int(key)] = label
    return meaning, set()
