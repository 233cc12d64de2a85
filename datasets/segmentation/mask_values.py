"""What the values in mask files may mean."""

from visionloop.datasets.io.json_columns import show
from visionloop.datasets.io.layout import shorten

IGNORED = 255  # class id of pixels that count for nothing; in memory, whatever the files say
VALUES = 65536  # a mask file has at most 16 bits a pixel
CITYSCAPES = {
    "road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17, "traffic light": 19, "traffic sign": 20,
    "vegetation": 21, "terrain": 22, "sky": 23, "person": 24, "rider": 25, "car": 26, "truck": 27, "bus": 28, "train": 31,
    "motorcycle": 32, "bicycle": 33,
}  # fmt: skip
CITYSCAPES_VALUES = 34  # 0 to 33; those without a class are void


def is_value(value, text=True):
    """A whole number 0 to 65535, or where `text`, one written as the key of an object."""
    if text and isinstance(value, str):
        return value.isascii() and value.isdigit() and int(value) < VALUES
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < VALUES


def read_meaning(ids, classes, values):
    """({value in a mask file: class id}, values that are ignored besides ignore_index). Raises ValueError.

    ids: what the `classes.json` says under that name, or None; values: those of the classes where
    it says nothing.
    """
    if ids is None:
        return {value: label for label, value in enumerate(values)}, set()
    if ids == "shift":
        return {label + 1: label for label in range(len(classes))}, {0}
    if ids == "cityscapes":
        if set(classes) != set(CITYSCAPES):
            raise ValueError(
                f'"ids" is "cityscapes", "classes" must then be its 19 ({shorten(list(CITYSCAPES))}) or be left out'
            )
        meaning = {CITYSCAPES[name]: label for label, name in enumerate(classes)}
        return meaning, set(range(CITYSCAPES_VALUES)) - set(meaning)
    if not isinstance(ids, dict) or not ids:
        raise ValueError(
            f'"ids" is {show(ids)}, expected {{value: class id}}, "shift" or "cityscapes"'
        )
    meaning = {}
    for key, target in ids.items():
        label = classes.index(target) if target in classes else target
        if not is_value(key):
            raise ValueError(
                f'"ids" has the key {key!r}, expected values of the masks, 0 to {VALUES - 1}'
            )
        if label in (None, IGNORED):
            continue
        if not is_value(label, text=False) or label >= len(classes):
            raise ValueError(
                f'"ids" {key!r} is {show(target)}, expected a class id 0 to {len(classes) - 1}, a class or null'
            )
        meaning[int(key)] = label
    return meaning, set()
