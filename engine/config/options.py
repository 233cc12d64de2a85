"""Settings: frozen dataclass fields with help, which click turns into options.

Precedence: default < recipe of the model < `--config` file < flag. Every resolved value remembers
where it came from. No torch here: `--help` must be quick.
"""

import dataclasses
import json
import re
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path

import click

from visionloop.engine.config.suggest import did_you_mean
from visionloop.engine.errors import UserError

# Types of settings that plain numbers do not cover: each makes a value of a text, and a value
# writes itself so that it reads back.

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
        return Seconds(
            sum(
                float(number) * size
                for number, size in zip(parts.groups(), UNITS.values(), strict=True)
                if number
            )
        )


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
    return (
        f"{hours}h{minutes:02d}m"
        if hours
        else f"{minutes}m{seconds:02d}s"
        if minutes
        else f"{seconds}s"
    )


WANTED = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
WANTED |= {kind: kind.wanted for kind in (Interval, Duration, Amount)}


def option(default, help, *, at_least=None, at_most=None, fixed=True):
    """A dataclass field that is also a command-line option.

    fixed: a run that continues must have the same value; a free one may change from start to start.
    """
    return field(
        default=default,
        metadata={"help": help, "at_least": at_least, "at_most": at_most, "fixed": fixed},
    )


@dataclass(frozen=True)
class Setting:
    """A resolved value and its source: default, recipe, config FILE, flag or auto."""

    value: object
    source: str

    def as_json(self):
        return {"value": _to_json(self.value), "source": self.source}


def _to_json(value):
    # json has no infinity; "inf" reads back through float(), "600s" through Interval()
    endless = isinstance(value, float) and value in (float("inf"), float("-inf"))
    return str(value) if endless or isinstance(value, Path | Seconds) else value


def value_type(hint):
    """The plain type of a field: `int | None` -> int, Literal -> tuple of its choices."""
    if typing.get_origin(hint) is typing.Literal:
        return typing.get_args(hint)
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return value_type(next(part for part in typing.get_args(hint) if part is not type(None)))
    return hint


def fields_of(*classes):
    """{name: (dataclass field, plain type)} over several config classes; a name may stand in one of them only."""
    found = {}
    for cls in classes:
        hints = typing.get_type_hints(cls)
        for item in dataclasses.fields(cls):
            assert item.name not in found, f"{item.name} is a setting of two classes"
            found[item.name] = (item, value_type(hints[item.name]))
    return found


def flag_of(name):
    return "--" + name.replace("_", "-")


def options_from(*classes, only=None):
    """A decorator that adds one click option per field. Unset options arrive as None, so that a flag can be told from a default.

    only: names of the fields that become options; None: all.
    """

    def decorate(command):
        fields = fields_of(*classes)
        for name, (item, kind) in [
            (name, fields[name]) for name in reversed(fields if only is None else only)
        ]:
            shown = (
                ""
                if item.default is None
                else f"  [default: {str(item.default).lower() if kind is bool else item.default}]"
            )
            flag, help = flag_of(name), item.metadata["help"] + shown
            if kind is bool:
                # a switch that is on by default is worth a --no- form; so is one that a recipe may
                # turn on
                command = click.option(f"{flag}/--no-{flag[2:]}", name, default=None, help=help)(
                    command
                )
            else:
                choice = (
                    click.Choice(kind)
                    if isinstance(kind, tuple)
                    else {int: click.INT, float: click.FLOAT}.get(kind, click.STRING)
                )
                command = click.option(flag, name, type=choice, default=None, help=help)(command)
        return command

    return decorate


def read_config_file(path):
    """{name: value} from a settings.json of ours or a flat json object of values."""
    try:
        content = json.loads(Path(path).read_text())
    except OSError as error:
        raise UserError(f"--config {path}: {error.strerror}", file=str(path)) from None
    except ValueError as error:
        raise UserError(f"--config {path}: not json ({error})", file=str(path)) from None
    if isinstance(content, dict) and "settings" in content:
        content = content["settings"]
    if not isinstance(content, dict):
        raise UserError(
            f"--config {path}: expected an object of settings, found {type(content).__name__}",
            file=str(path),
        )
    values = {}
    for name, item in content.items():
        if isinstance(item, dict) and "value" not in item:
            raise UserError(
                f"--config {path}: {name}: expected a value or an object with one",
                file=str(path),
                field=name,
            )
        # what a run resolved for itself belongs to its data and machine
        if not isinstance(item, dict) or item.get("source") not in ("auto", "resolved"):
            values[name] = item["value"] if isinstance(item, dict) else item
    return values


def resolve(classes, flags, *, recipe=None, config_file=None):
    """{name: Setting}. flags: {name: value or None}; recipe: values -> {name: value}, asked once data, model and preset are known."""
    known = fields_of(*classes)
    file_values = read_config_file(config_file) if config_file else {}
    unknown = [name for name in file_values if name not in known]
    if unknown:
        message = f"--config {config_file}: unknown setting {unknown[0]!r}{did_you_mean(unknown[0], known)}"
        raise UserError(message, file=str(config_file), field=unknown[0])
    settings = {name: Setting(item.default, "default") for name, (item, _) in known.items()}
    given = {name: Setting(value, f"config {config_file}") for name, value in file_values.items()}
    given |= {name: Setting(value, "flag") for name, value in flags.items() if value is not None}
    given = {
        name: Setting(coerce(name, *known[name], setting.value), setting.source)
        for name, setting in given.items()
    }
    settings |= given
    if recipe:
        advised = recipe({name: setting.value for name, setting in settings.items()})
        settings |= {
            name: Setting(value, "recipe") for name, value in advised.items() if name not in given
        }
    for name, (item, kind) in known.items():
        check_value(name, item, kind, settings[name].value)
    return settings


def coerce(name, item, kind, value):
    """The value in the field's own type; UserError when it does not fit."""
    if value is None:
        if item.default is None:
            return None
        raise UserError(f"{flag_of(name)}: expected a value, got null", field=name)
    if isinstance(kind, tuple):
        return value
    wanted = WANTED[kind]
    fits = (
        isinstance(value, bool)
        if kind is bool
        else isinstance(value, str | int | float | Path) and not isinstance(value, bool)
    )
    try:
        converted = kind(value) if fits else None
        if converted is None or (
            kind in (int, Amount) and converted != AUTO and float(value) != converted
        ):
            raise ValueError
    except (ValueError, OverflowError):
        raise UserError(f"{flag_of(name)}: expected {wanted}, got {value!r}", field=name) from None
    return converted


def check_value(name, item, kind, value):
    """Raise UserError naming the flag when a value is outside its range or choices."""
    low, high = item.metadata.get("at_least"), item.metadata.get("at_most")
    if isinstance(kind, tuple) and value is not None and value not in kind:
        raise UserError(
            f"{flag_of(name)}: expected one of {', '.join(map(str, kind))}, got {value!r}{did_you_mean(value, kind)}",
            field=name,
        )
    if value is None or value == AUTO or (low is None and high is None):
        return
    if value != value or (low is not None and value < low) or (high is not None and value > high):
        wanted = (
            f"{low} to {high}"
            if low is not None and high is not None
            else f"at least {low}"
            if high is None
            else f"at most {high}"
        )
        raise UserError(f"{flag_of(name)}: expected {wanted}, got {value}", field=name)


def build(cls, settings):
    """One config object out of resolved settings."""
    return cls(**{item.name: settings[item.name].value for item in dataclasses.fields(cls)})


def settings_json(settings, **immutable_settings):
    """The text of settings.json: every value with its source, and immutable_settings such as the data's fingerprint."""
    rows = {name: setting.as_json() for name, setting in settings.items()}
    rows |= {
        name: Setting(value, "resolved").as_json() for name, value in immutable_settings.items()
    }
    return json.dumps({"schema": 1, "settings": rows}, indent=1) + "\n"
