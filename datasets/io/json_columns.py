"""Values out of a json that somebody else wrote: whole columns of them, and which are not what they should be."""

import sys

import numpy as np

LARGEST_ID = 2**63 - 1  # what the index can hold


def column(entries, key, absent=None):
    """entry[key] of every object, `absent` where it has none."""
    return [entry.get(key, absent) for entry in entries]


def look_up(table, keys, unknown=-1):
    """int64 [N]: table[key] of each key, `unknown` where there is none; keys may be of any kind."""
    try:
        found = [table.get(key, unknown) for key in keys]
    except TypeError:  # a list or an object among them
        found = [
            unknown if isinstance(key, list | dict) else table.get(key, unknown) for key in keys
        ]
    return np.array(found, dtype=np.int64)


def numbers(values):
    """(float64 [N], bool [N] whether the value is one finite number); 0 where it is not."""
    columns, right = number_lists([[value] for value in values], 1)
    return columns[:, 0], right


def number_lists(values, length):
    """(float64 [N, length], bool [N] whether the value is a list of so many finite numbers); 0 where it is not."""
    try:
        array = np.array(values)
    except ValueError:  # lists of different lengths
        array = np.array(None)
    right = np.ones(len(values), dtype=bool)
    if array.dtype.kind not in "iuf" or array.shape != (len(values), length):
        # something is wrong, or there is nothing: one by one
        right = np.array(
            [
                isinstance(value, list) and len(value) == length and all(map(is_number, value))
                for value in values
            ],
            dtype=bool,
        )
        array = np.zeros((len(values), length))
        array[right] = np.array(
            [value for value, good in zip(values, right, strict=True) if good], dtype=np.float64
        ).reshape(-1, length)
    array = array.astype(np.float64)
    right &= np.isfinite(array).all(axis=1)
    array[~right] = 0
    return array, right


def is_number(value):
    """Finite, and no truth value."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) <= sys.float_info.max
    )


def is_text(value):
    return isinstance(value, str) and bool(value.strip())


def wrong_id(value):
    """What is wrong with an id, or None: whole numbers and strings are right."""
    if isinstance(value, str) or (
        isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST_ID
    ):
        return None
    return f"id is {show(value)}, neither a whole number nor text"


def repeated(values):
    """Positions of the values that an earlier one equals."""
    seen = set()
    return [position for position, value in enumerate(values) if value in seen or seen.add(value)]


def show(value):
    """A value for a message of one line."""
    text = "missing" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
