"""Columns of values from a JSON file, with a mask of the values that are not valid."""

import sys
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

# parsed JSON from outside: each value is checked where it is used
JsonObject: TypeAlias = dict[str, Any]  # type: ignore[explicit-any]
JsonValues: TypeAlias = list[Any]  # type: ignore[explicit-any]

LARGEST_ID = 2**63 - 1  # of int64


def column(entries: Sequence[JsonObject], key: str, absent: object = None) -> JsonValues:
    """Return entry[key] of every object, `absent` where it is missing."""
    return [entry.get(key, absent) for entry in entries]


def look_up(
    table: Mapping[Hashable, int], keys: JsonValues, unknown: int = -1
) -> NDArray[np.int64]:
    """Return table[key] of each key, int64 [N], `unknown` where there is none.

    Keys may be of any type.
    """
    try:
        values = [table.get(key, unknown) for key in keys]
    except TypeError:  # a list or an object among them
        values = [
            unknown if isinstance(key, list | dict) else table.get(key, unknown) for key in keys
        ]
    return np.array(values, dtype=np.int64)


def numbers(values: JsonValues) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return (float64 [N], bool [N]: the value is a finite number); 0 where it is not."""
    columns, is_valid = number_lists([[value] for value in values], 1)
    return columns[:, 0], is_valid


def number_lists(values: JsonValues, length: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return (float64 [N, length], bool [N]: the value is a list of that many finite numbers).

    Rows of values that are not valid are 0.
    """
    try:
        array = np.array(values)
    except ValueError:  # lists of different lengths
        array = np.array(None)
    is_valid = np.ones(len(values), dtype=bool)
    if array.dtype.kind not in "iuf" or array.shape != (len(values), length):
        # a value is not valid, or there is none: look at them one by one
        is_valid = np.array(
            [
                isinstance(value, list) and len(value) == length and all(map(is_number, value))
                for value in values
            ],
            dtype=bool,
        )
        array = np.zeros((len(values), length))
        array[is_valid] = np.array(
            [value for value, valid in zip(values, is_valid, strict=True) if valid],
            dtype=np.float64,
        ).reshape(-1, length)
    array = array.astype(np.float64)
    is_valid &= np.isfinite(array).all(axis=1)
    array[~is_valid] = 0
    return array, is_valid


def is_number(value: object) -> bool:
    """Return whether a value is a finite number; a bool is none."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) <= sys.float_info.max
    )


def is_text(value: object) -> bool:
    """Return whether a value is a string that is not blank."""
    return isinstance(value, str) and bool(value.strip())


def whole_numbers(values: JsonValues) -> JsonValues:
    """Return the values with whole numbers such as 1.0 as int, as pandas writes them with a dot."""
    return [
        int(value) if isinstance(value, float) and value.is_integer() else value for value in values
    ]


def wrong_id(value: object) -> str | None:
    """Return the problem of an id, or None: whole numbers and strings are valid."""
    if isinstance(value, str) or (
        isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST_ID
    ):
        return None
    return f"id is {show(value)}, neither a whole number nor text"


def repeated(values: Sequence[Hashable]) -> list[int]:
    """Return the positions of values that are equal to an earlier one."""
    earlier: set[Hashable] = set()
    positions = []
    for position, value in enumerate(values):
        if value in earlier:
            positions.append(position)
        earlier.add(value)
    return positions


def show(value: object) -> str:
    """Format a value for a message of one line."""
    text = "missing" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
