"""Types of settings that plain numbers do not cover: each makes a value of a text, and a value writes itself so that it reads back."""

import re

UNITS = {"h": 3600, "m": 60, "s": 1}


class Seconds(float):
    """A span of time where a number of steps would do too; written 600s."""

    def __str__(self):
        return f"{self:g}s"


class Interval:
    """The type of a setting that counts optimizer steps or seconds: Interval("50") is 50, Interval("600s") is Seconds(600)."""

    wanted = "steps, or seconds as in 600s"

    def __new__(cls, value):
        if isinstance(value, Seconds):
            return value
        text = str(value)
        number = Seconds(text[:-1]) if text.endswith("s") else int(text)
        if number != number or number == float("inf"):
            raise ValueError(text)
        return number


class Duration:
    """The type of a setting that is a span of time: Duration("1h30m") is Seconds(5400)."""

    wanted = "a time as in 2h, 90m, 300s or 1h30m"

    def __new__(cls, value):
        if isinstance(value, Seconds):
            return value
        text = str(value).strip().lower()
        parts = re.fullmatch(r"(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s)?", text)
        if not text or parts is None:
            raise ValueError(text)
        return Seconds(sum(float(number) * size for number, size in zip(parts.groups(), UNITS.values(), strict=True) if number))


class Amount:
    """The type of a setting that is a whole number, or "auto" to have it found: Amount("8") is 8."""

    wanted = "a whole number or auto"

    def __new__(cls, value):
        return value if value == AUTO else int(value)


AUTO = "auto"


def duration_text(seconds):
    """Seconds as a person writes them: 2h05m, 5m00s, 42s."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{seconds:02d}s" if minutes else f"{seconds}s"
