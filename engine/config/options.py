"""Settings: fields of frozen dataclasses with help, range and group.

The command line is made from them (bin/commands/options.py). Precedence: default < recipe of the
model < `--config` file < flag. Every resolved value remembers its source. No torch here: `--help`
must be quick.
"""

import dataclasses
import enum
import json
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias, TypeVar, overload

from visionloop.engine.config.suggest import did_you_mean
from visionloop.engine.errors import UserError

if TYPE_CHECKING:
    from visionloop.engine.types import JsonObject

T = TypeVar("T")
# the type that a text is read as; a tuple: the choices of a Literal
ValueType: TypeAlias = type | tuple[str, ...]

AUTO: Final = "auto"
# the sections of `--help`, in their order
GROUPS = (
    "Data",
    "Augmentation",
    "Model",
    "Loss",
    "Optimization",
    "Precision and memory",
    "Evaluation",
    "Checkpoints",
    "Machine",
    "Output",
    "Other",
)
UNITS = {"h": 3600, "m": 60, "s": 1}


class Seconds(float):
    """A time span in seconds. Its text is `600s`, which reads back as the same value."""

    def __str__(self) -> str:
        return f"{self:g}s"


class Interval:
    """Parser of steps or seconds: Interval("50") is 50, Interval("600s") is Seconds(600)."""

    expected: ClassVar[str] = "a number of steps, or of seconds as in 600s"

    def __new__(cls, value: object) -> "int | Seconds":  # type: ignore[misc]  # a parser: the value is a number
        if isinstance(value, Seconds):
            return value
        text = str(value)
        number = Seconds(text[:-1]) if text.endswith("s") else int(text)
        if number != number or number == float("inf"):
            raise ValueError(text)
        return number


class Duration:
    """Parser of a time span: Duration("1h30m") is Seconds(5400)."""

    expected: ClassVar[str] = "a time as in 2h, 90m, 300s or 1h30m"

    def __new__(cls, value: object) -> Seconds:  # type: ignore[misc]  # a parser: the value is a number
        if isinstance(value, Seconds):
            return value
        text = str(value).strip().lower()
        parts = re.fullmatch(r"(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s)?", text)
        if not text or parts is None:
            raise ValueError(text)
        numbers = zip(parts.groups(), UNITS.values(), strict=True)
        return Seconds(sum(float(number) * size for number, size in numbers if number))


class Amount:
    """Parser of a whole number, or of "auto" for a value that is measured: Amount("8") is 8."""

    expected: ClassVar[str] = "a whole number or auto"

    def __new__(cls, value: object) -> int | str:  # type: ignore[misc]  # a parser: the value is a number
        return AUTO if value == AUTO else int(value)  # type: ignore[call-overload]  # ValueError is meant


EXPECTED = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
EXPECTED |= {kind: kind.expected for kind in (Interval, Duration, Amount)}


def duration_text(seconds: float) -> str:
    """Format seconds for people: 2h05m, 5m00s, 42s."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{seconds:02d}s" if minutes else f"{seconds}s"


# A default of None is a value that is resolved later, so the field may have any type: its
# annotation is the type of the resolved value.
@overload
def option(  # type: ignore[explicit-any]  # see above
    default: None,
    help: str,
    *,
    group: str = ...,
    at_least: float | None = ...,
    at_most: float | None = ...,
    fixed: bool = ...,
    is_path: bool = ...,
) -> Any: ...
@overload
def option(
    default: T,
    help: str,
    *,
    group: str = ...,
    at_least: float | None = ...,
    at_most: float | None = ...,
    fixed: bool = ...,
    is_path: bool = ...,
) -> T: ...
def option(
    default: object,
    help: str,
    *,
    group: str = "Other",
    at_least: float | None = None,
    at_most: float | None = None,
    fixed: bool = True,
    is_path: bool = False,
) -> object:
    """Make a dataclass field that is also a command-line option.

    help: a full phrase with the unit; the default is added where it is shown; group: its section of
    `--help`, one of GROUPS; at_least, at_most: range of the value, both included; fixed: a resumed
    run must have the same value, a free setting may change from start to start; is_path: shells
    complete file names.
    """
    assert group in GROUPS, f"{group} is no section of --help"
    metadata = {"help": help, "group": group, "fixed": fixed, "is_path": is_path}
    return field(default=default, metadata=metadata | {"at_least": at_least, "at_most": at_most})


class SettingSource(enum.StrEnum):
    """Origin of a resolved value, the weakest first: what a later one says wins."""

    DEFAULT = "default"
    RECIPE = "recipe"
    CONFIG = "config"  # a --config file
    FLAG = "flag"
    AUTO = "auto"  # computed from data, machine and the length of the run
    RESOLVED = "resolved"  # a fact about the data that is stored beside the settings

    @property
    def precedence(self) -> int:
        return list(SettingSource).index(self)


@dataclass(frozen=True)
class Setting:  # type: ignore[explicit-any]  # see value
    """A resolved value and its source.

    file: the `--config` file it was read from; reason: of a value that was measured.
    """

    value: Any  # type: ignore[explicit-any]  # each setting has the type of its own field
    source: SettingSource
    file: str | None = None
    reason: str | None = None

    def as_json(self) -> "JsonObject":
        """Return the value and its source as settings.json and `--dry-run` show them."""
        source = f"{self.source} {self.file}" if self.file is not None else str(self.source)
        row: JsonObject = {"value": _to_json(self.value), "source": source}
        return row if self.reason is None else row | {"reason": self.reason}


Settings: TypeAlias = dict[str, Setting]
# a setting's name -> the field of its config class, and the type that a text is read as
Fields: TypeAlias = "dict[str, tuple[dataclasses.Field[object], ValueType]]"
# a task's recipe: the values so far -> {name: value} of what model and preset change
Recipe: TypeAlias = Callable[["JsonObject"], "JsonObject"]


def parse_source(text: str) -> tuple[SettingSource, str | None]:
    """Read the "source" of a stored setting: its SettingSource, and the `--config` file if any."""
    source, _, file = text.partition(" ")
    return SettingSource(source), file or None


def _to_json(value: object) -> object:
    # json has no infinity; "inf" reads back through float(), "600s" through Interval()
    is_infinite = isinstance(value, float) and value in (float("inf"), float("-inf"))
    return str(value) if is_infinite or isinstance(value, Path | Seconds) else value


def value_type(hint: object) -> ValueType:
    """Return the plain type of an annotation.

    `int | None` is int, a Literal the tuple of its choices, Annotated[.., Interval] is Interval.
    """
    if typing.get_origin(hint) is typing.Annotated:
        return value_type(typing.get_args(hint)[1])
    if typing.get_origin(hint) is typing.Literal:
        return typing.get_args(hint)
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return value_type(next(part for part in typing.get_args(hint) if part is not type(None)))
    assert isinstance(hint, type), f"{hint} is no type of a setting"
    return hint


def fields_of(*classes: type) -> Fields:
    """Return {name: (dataclass field, plain type)} over config classes, which share no name."""
    fields: Fields = {}
    for cls in classes:
        hints = typing.get_type_hints(cls, include_extras=True)
        for item in dataclasses.fields(cls):
            assert item.name not in fields, f"{item.name} is a setting of two classes"
            fields[item.name] = (item, value_type(hints[item.name]))
    return fields


def flag_of(name: str) -> str:
    """Return the command-line flag of a setting: `batch_size` is `--batch-size`."""
    return "--" + name.replace("_", "-")


def read_config_file(path: str | Path) -> "JsonObject":
    """Read {name: value} from the settings.json of a run or from a flat json object of values.

    Raises UserError for a file that cannot be read or holds no settings.
    """
    try:
        content = json.loads(Path(path).read_bytes())  # a BOM and UTF-16 are understood
    except OSError as error:
        raise UserError(f"--config {path}: {error.strerror}", file=str(path)) from None
    except ValueError as error:
        why = f"not a json file ({error}); a settings.json of a run is one"
        raise UserError(f"--config {path}: {why}", file=str(path)) from None
    if isinstance(content, dict) and "settings" in content:
        content = content["settings"]
    if not isinstance(content, dict):
        why = f"expected an object of settings, got {type(content).__name__}"
        raise UserError(f"--config {path}: {why}", file=str(path))
    values = {}
    for name, item in content.items():
        if isinstance(item, dict) and "value" not in item:
            why = f"{name}: expected a value, or an object that has the key value"
            raise UserError(f"--config {path}: {why}", file=str(path), field=name)
        # what a run resolved for itself belongs to its data and machine
        resolved = (SettingSource.AUTO, SettingSource.RESOLVED)
        if not isinstance(item, dict) or item.get("source") not in resolved:
            values[name] = item["value"] if isinstance(item, dict) else item
    return values


def resolve(
    classes: Sequence[type],
    flags: Mapping[str, object],
    *,
    recipe: Recipe | None = None,
    config_file: str | Path | None = None,
    base: Settings | None = None,
) -> Settings:
    """Resolve every setting of the config classes to a Setting.

    flags: {name: value, or None where the flag is not given}; recipe: called with {name: value} of
    defaults, file and flags; base: settings that are stronger than the recipe and weaker than the
    file. Raises UserError for an unknown name and a wrong value.
    """
    fields = fields_of(*classes)
    file_values = read_config_file(config_file) if config_file else {}
    for name in file_values:
        if name not in fields:
            why = f"unknown setting {name!r}{did_you_mean(name, fields)}"
            raise UserError(f"--config {config_file}: {why}", file=str(config_file), field=name)
    raw_settings = dict(base or {})
    raw_settings |= {
        name: Setting(value, SettingSource.CONFIG, str(config_file))
        for name, value in file_values.items()
    }
    raw_settings |= {
        name: Setting(value, SettingSource.FLAG)
        for name, value in flags.items()
        if value is not None
    }
    chosen = {
        name: dataclasses.replace(setting, value=coerce(name, *fields[name], setting.value))
        for name, setting in raw_settings.items()
    }
    defaults = {
        name: Setting(item.default, SettingSource.DEFAULT) for name, (item, _) in fields.items()
    }
    settings = defaults | chosen
    if recipe:
        advised = recipe({name: setting.value for name, setting in settings.items()})
        settings |= {
            name: Setting(value, SettingSource.RECIPE)
            for name, value in advised.items()
            if name not in chosen
        }
    for name, (item, kind) in fields.items():
        check_value(name, item, kind, settings[name].value)
    return settings


def coerce(name: str, item: "dataclasses.Field[object]", kind: ValueType, value: object) -> object:
    """Convert a flag or file value to its field's type. Raises UserError if it does not fit."""
    if value is None:
        if item.default is None:
            return None
        raise UserError(f"{flag_of(name)}: expected a value, got null", field=name)
    if isinstance(kind, tuple):
        return value
    if kind is bool:
        fits = isinstance(value, bool)
    else:
        fits = isinstance(value, str | int | float | Path) and not isinstance(value, bool)
    try:
        converted = kind(value) if fits else None
        rounded = kind in (int, Amount) and converted not in (None, AUTO)
        if converted is None or (rounded and float(str(value)) != converted):
            raise ValueError
    except (ValueError, OverflowError):
        message = f"{flag_of(name)}: expected {EXPECTED[kind]}, got {value!r}"
        raise UserError(message, field=name) from None
    return converted


def check_value(  # type: ignore[explicit-any]  # each setting has the type of its own field
    name: str, item: "dataclasses.Field[object]", kind: ValueType, value: Any
) -> None:
    """Raise a UserError that names the flag if the value is no choice or out of range."""
    low, high = item.metadata.get("at_least"), item.metadata.get("at_most")
    if isinstance(kind, tuple) and value is not None and value not in kind:
        choices = ", ".join(map(str, kind))
        why = f"expected one of {choices}, got {value!r}{did_you_mean(value, kind)}"
        raise UserError(f"{flag_of(name)}: {why}", field=name)
    if value is None or value == AUTO or (low is None and high is None):
        return
    if value != value or (low is not None and value < low) or (high is not None and value > high):
        if low is not None and high is not None:
            valid_range = f"{low} to {high}"
        else:
            valid_range = f"at least {low}" if high is None else f"at most {high}"
        raise UserError(f"{flag_of(name)}: expected {valid_range}, got {value}", field=name)


def build(cls: type[T], settings: Settings) -> T:
    """Make a config object of its part of the resolved settings."""
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]  # config classes are dataclasses
    return cls(**{item.name: settings[item.name].value for item in fields})


def settings_json(settings: Settings, **immutable_settings: object) -> str:
    """Return the text of settings.json: every value with its source.

    immutable_settings: facts that must not change between starts, such as the data's fingerprint.
    """
    rows = {name: setting.as_json() for name, setting in settings.items()}
    for name, value in immutable_settings.items():
        rows[name] = Setting(value, SettingSource.RESOLVED).as_json()
    return json.dumps({"schema": 1, "settings": rows}, indent=1) + "\n"
