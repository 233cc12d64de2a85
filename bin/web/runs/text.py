"""Texts and numbers of run folders, made fit for JSON.

A run folder may come from anywhere: a file name need not be UTF-8, and a number need not fit.
"""

import json
import math

from starlette.responses import Response

from visionloop.bin.reports.run_folder import is_number


class AsciiJson(Response):
    """JSON in which all that is not ASCII is escaped, so that every name can be sent."""

    media_type = "application/json"

    def __init__(self, content: object, status_code: int = 200) -> None:
        super().__init__(json.dumps(content, separators=(",", ":"), allow_nan=False), status_code)


def text_of(value: object) -> str:
    """Return a value as text that UTF-8 can encode."""
    return str(value).encode("utf-8", "backslashreplace").decode()


def text_or_none(value: object) -> str | None:
    """Return a value as text that UTF-8 can encode, None as it is."""
    return None if value is None else text_of(value)


def float_or_none(value: object) -> float | None:
    """Return a finite number, None for anything else."""
    try:
        number = float(value) if is_number(value) else math.nan
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def int_or_none(value: object) -> int | None:
    """Return a number of steps, None for anything else."""
    number = float_or_none(value)
    return int(number) if number is not None and 0 <= number < 2**53 else None
