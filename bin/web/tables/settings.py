"""Settings of a task as a form shows them: groups, ranges, and values with model and preset."""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from pydantic import BaseModel, Field

from visionloop.engine.config.options import (
    GROUPS,
    Amount,
    Duration,
    Interval,
    Setting,
    Settings,
    SettingSource,
    ValueType,
    fields_of,
    flag_of,
    resolve,
)
from visionloop.engine.config.train_config import TrainConfig
from visionloop.engine.errors import UserError
from visionloop.tasks.model_zoo import ModelZoo

Value: TypeAlias = bool | int | float | str | None
Kind: TypeAlias = Literal[
    "bool", "int", "float", "text", "choice", "path", "duration", "interval", "amount"
]
KINDS: Mapping[ValueType, Kind] = {
    bool: "bool",
    int: "int",
    float: "float",
    str: "text",
    Duration: "duration",
    Interval: "interval",
    Amount: "amount",
}
# decided by the server: the folder of a run, and what it starts from
NOT_SETTABLE = {
    "output": "give run_name: the folder is below the first folder with runs",
    "run_name": "give it beside settings, not in them",
    "resume": "resume the job or the run itself",
    "branch": "begin a branch with the command line: train --branch RUN@STEP",
    "extend": "lengthen a run with the command line: train --extend N",
}
# chosen by other fields of a request than `settings`
CHOSEN_ELSEWHERE = ("data", "model", *NOT_SETTABLE)
# offered where the server names functions
OWN_AUGMENTATION = ("augment", "augment_only")
# what decides most about the result and the time, in the order of a form
IMPORTANT = {
    "classification": ("image_size", "rand_augment_ops"),
    "detection": ("image_size", "strong_share"),
    "segmentation": ("image_size", "scale_min"),
    "instance_segmentation": ("image_size", "scale_min"),
    "panoptic_segmentation": ("image_size", "scale_min"),
    "super_resolution": ("patch_size", "scale"),
}
IMPORTANT_OF_ALL = (
    "preset",
    "from_scratch",
    "epochs",
    "batch_size",
    "lr",
    "eval_every",
    "precision",
    "seed",
)


class SettingRow(BaseModel):
    """A setting of `train`. Values as in settings.json: infinity and times are texts."""

    name: str
    flag: str = Field(description="on the command line")
    type: Kind
    choices: list[str] | None = Field(description="of type choice")
    default: Value = Field(description="without model and preset; null: resolved by the run")
    value: Value = Field(description="with this model, preset and data, if nothing is given")
    source: str = Field(description="default or recipe")
    help: str
    at_least: float | None
    at_most: float | None
    important: bool = Field(description="one of the ten that matter first")


class SettingGroup(BaseModel):
    """A section of `train --help`."""

    name: str
    settings: list[SettingRow]


class PresetRow(BaseModel):
    """A preset of a task, and what it changes for the model."""

    name: str
    values: dict[str, Value]


class SettingsError(BaseModel):
    """Why the values do not follow the model and preset of the request."""

    message: str
    field: str | None


class SettingsTable(BaseModel):
    """All settings of a task."""

    groups: list[SettingGroup]
    first: list[str] = Field(description="the ten that matter first, in the order of a form")
    presets: list[PresetRow]
    model: str = Field(description="the one that is meant, also without a model in the request")
    preset: str
    error: SettingsError | None = None


def settings_table(
    zoo: ModelZoo, given: Mapping[str, Value], functions: Sequence[str] = ()
) -> SettingsTable:
    """Return the settings with the values that the recipe gives for model, preset and data.

    Args:
        zoo: of the task.
        given: {name: value} of "model", "preset", "data" and "from_scratch" as far as chosen.
        functions: choices of `augment`; without any there is nothing to choose.
    """
    error = None
    try:
        settings = _resolve(zoo, given)
    except UserError as problem:
        error = SettingsError(message=str(problem), field=problem.field)
        settings = _resolve(zoo, {})
    rows = _rows(zoo, settings, functions)
    fields = fields_of(zoo.config_class, TrainConfig)
    groups = [
        SettingGroup(
            name=group,
            settings=[row for row in rows if fields[row.name][0].metadata["group"] == group],
        )
        for group in GROUPS
    ]
    return SettingsTable(
        groups=[group for group in groups if group.settings],
        first=list(important_settings(zoo)),
        presets=[PresetRow(name=name, values=_changes(zoo, given, name)) for name in zoo.presets],
        model=str(settings["model"].value),
        preset=str(settings["preset"].value),
        error=error,
    )


def important_settings(zoo: ModelZoo) -> tuple[str, ...]:
    """Return the names of the ten settings that matter first, in the order of a form."""
    *before, eval_every, precision, seed = IMPORTANT_OF_ALL
    return (*before, *IMPORTANT[zoo.command], eval_every, precision, seed)


def _resolve(zoo: ModelZoo, given: Mapping[str, Value]) -> Settings:
    return resolve((zoo.config_class, TrainConfig), given, recipe=zoo.recipe)


def _changes(zoo: ModelZoo, given: Mapping[str, Value], preset: str) -> dict[str, Value]:
    """Return {name: value} of what a preset changes; {} where it does not fit the model."""
    try:
        settings = _resolve(zoo, {**given, "preset": preset})
    except UserError:
        return {}
    return {
        name: _shown(setting)
        for name, setting in settings.items()
        if setting.source == SettingSource.RECIPE and name not in CHOSEN_ELSEWHERE
    }


def _rows(zoo: ModelZoo, settings: Settings, functions: Sequence[str]) -> list[SettingRow]:
    important = important_settings(zoo)
    fields = fields_of(zoo.config_class, TrainConfig)
    return [
        SettingRow(
            name=name,
            flag=flag_of(name),
            type=_kind(name, kind, is_path=item.metadata["is_path"]),
            choices=list(functions) if name == "augment" else _choices(zoo, name, kind),
            default=_shown(Setting(item.default, SettingSource.DEFAULT)),
            value=_shown(settings[name]),
            source=str(settings[name].source),
            help=item.metadata["help"],
            at_least=item.metadata["at_least"],
            at_most=item.metadata["at_most"],
            important=name in important,
        )
        for name, (item, kind) in fields.items()
        if name not in CHOSEN_ELSEWHERE and (functions or name not in OWN_AUGMENTATION)
    ]


def _kind(name: str, kind: ValueType, *, is_path: bool) -> Kind:
    if isinstance(kind, tuple) or name in ("preset", "augment"):
        return "choice"
    return "path" if is_path else KINDS[kind]


def _choices(zoo: ModelZoo, name: str, kind: ValueType) -> list[str] | None:
    if name == "preset":
        return list(zoo.presets)
    return list(kind) if isinstance(kind, tuple) else None


def _shown(setting: Setting) -> Value:
    value: Value = setting.as_json()["value"]
    return value
