"""Settings that depend on the data, the machine and the length of the run."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from visionloop.engine.augmentation import augmentation_fact
from visionloop.engine.config.branch_point import START, DataOrigin, branch_folder
from visionloop.engine.config.options import (
    AUTO,
    Fields,
    Setting,
    Settings,
    SettingSource,
    build,
    fields_of,
    flag_of,
)
from visionloop.engine.config.train_config import TaskConfig, TrainConfig
from visionloop.engine.errors import UserError
from visionloop.engine.system.cores import share_cores

if TYPE_CHECKING:
    from visionloop.engine.task import Task
    from visionloop.engine.types import JsonObject, SampleDataset

DEFAULT_MICRO_BATCH = 32
UNSIZED = 1000  # steps of a run with a budget, until it is measured how many fit
LENGTHS = ("steps", "epochs", "budget")
# settings of which another start may resolve another value: those of the machine, and the length,
# which is checked for changes elsewhere
RESOLVED_AT_EACH_START = ("workers", "device", "steps", "shard")


def output_folder(settings: Settings, task_name: str) -> Path:
    """Return the folder of a run: --output, runs/NAME of --run-name, or runs/TASK-DATA-MODEL.

    That of a branch is named after its source. There is no time stamp in it, so the same command
    resumes the run.
    """
    value = {name: setting.value for name, setting in settings.items()}
    if value["output"] and value["run_name"]:
        why = "is short for --output runs/NAME, so give one of the two"
        raise UserError(f"--run-name: {why}", field="run_name")
    if value["output"]:
        return Path(value["output"])
    if value["branch"] and not value["run_name"]:
        return branch_folder(value["branch"], value["extend"])
    data, model = Path(value["data"] or ".").resolve().name, Path(str(value["model"])).name
    return Path("runs") / (value["run_name"] or f"{task_name}-{data}-{model}")


def resolve_auto(
    settings: Settings,
    num_samples: int,
    device_type: str,
    stored: "JsonObject",
    resolve_defaults: "Callable[[JsonObject, int], JsonObject]",
    measured: Mapping[str, object] | None = None,
    origin: DataOrigin = START,
) -> Settings:
    """Return the settings with a value for all that default to None.

    stored: the run's settings.json, whose auto values are kept, {} for a new run; resolve_defaults:
    the task's own, see `Task.resolve_defaults`; measured: {name: value} measured on this machine;
    origin: where the sequence of samples begins.
    """
    measured = measured or {}
    value: JsonObject = {
        name: None if setting.value == AUTO else setting.value for name, setting in settings.items()
    }
    steps = measured.get("steps") or length_of_run(settings, num_samples, stored, origin)
    assert isinstance(steps, int)
    workers, threads = share_cores(device_type)
    steps_per_epoch = math.ceil(num_samples / value["batch_size"])
    computed = {
        "steps": steps,
        "micro_batch": DEFAULT_MICRO_BATCH,
        "shard": "none",
        "warmup_steps": round(0.05 * steps),
        "eval_every": max(steps_per_epoch, math.ceil(steps / 20)),
        "save_every": max(1, min(1000, steps // 10)),
        "workers": workers,
        "threads": threads,
        "device": device_type,
    }
    computed |= resolve_defaults(value, steps)
    resolved = dict(settings)
    for name, number in (computed | dict(measured)).items():
        if value[name] is None or (name == "steps" and steps != value["steps"]):
            first = stored.get(name, {})  # what the first start of the run resolved
            if (
                first.get("source") == SettingSource.AUTO
                and name not in RESOLVED_AT_EACH_START
                and name not in measured
            ):
                number = first["value"]
            resolved[name] = Setting(number, SettingSource.AUTO)
    return resolved


def given_length(settings: Settings) -> str:
    """Return which of steps, epochs and budget decides: the one of the strongest source.

    Raises UserError where none is given, or two by equally strong sources.
    """
    given = [name for name in LENGTHS if settings[name].value is not None]
    if not given:
        message = "--steps, --epochs or --budget: one of them is needed for the length of the run"
        raise UserError(message, field="steps")
    precedence = {name: settings[name].source.precedence for name in given}
    strongest = [name for name in given if precedence[name] == max(precedence.values())]
    if len(strongest) > 1:
        last, *others = (flag_of(name) for name in reversed(strongest))
        joined = " or ".join(reversed(others))
        together = "both" if len(strongest) == 2 else "several"
        raise UserError(f"{last}: give it or {joined}, not {together}", field=strongest[-1])
    return strongest[0]


def length_of_run(
    settings: Settings, num_samples: int, stored: "JsonObject", origin: DataOrigin = START
) -> int:
    """Return the optimizer steps of --steps, of --epochs, or those that fit --budget.

    The latter are measured at the first start and read from `stored`; until then they are UNSIZED.
    """
    given = given_length(settings)
    if given == "steps":
        return int(settings["steps"].value)
    if given == "budget":
        return int(stored["steps"]["value"]) if "steps" in stored else UNSIZED
    samples = settings["epochs"].value * num_samples - origin.sample
    return max(1, origin.step + math.ceil(samples / settings["batch_size"].value))


def immutable_settings_of(settings: Settings, fields: Fields, **more: object) -> "JsonObject":
    """Return {name: json value} of what must not change when the run is resumed.

    fields: of `fields_of`; more: facts about task and data that belong to it.
    """
    # infinity as a text: a checkpoint's state.json has no number for it
    fixed = {
        name: setting.as_json()["value"]
        for name, setting in settings.items()
        if fields[name][0].metadata["fixed"]
    }
    content: JsonObject = json.loads(json.dumps({**fixed, **more}, default=str))
    return content


@dataclass(frozen=True)
class ResolvedSettings:
    """The settings of a run with nothing left to resolve.

    settings: {name: Setting}; immutable_settings: {name: value} of those that must not change when
    the run is resumed, with the task and the fingerprint of the data; task_config: the task's own.
    """

    settings: Settings
    immutable_settings: "JsonObject"
    task_config: TaskConfig

    @property
    def train_config(self) -> TrainConfig:
        """The engine's part of the settings."""
        return build(TrainConfig, self.settings)


def resolve_run(
    task: "Task",
    raw_settings: Settings,
    train_set: "SampleDataset",
    device_type: str,
    stored: "JsonObject",
    measured: Mapping[str, object] | None = None,
    origin: DataOrigin = START,
) -> ResolvedSettings:
    """Resolve what depends on the data and the length of the run; changes nothing, `task` neither.

    raw_settings: of the command line; stored: the run's settings.json, {} for a new run; measured:
    {name: value} measured on this machine; origin: where the sequence of samples begins.
    """
    settings = resolve_auto(
        raw_settings, len(train_set), device_type, stored, task.resolve_defaults, measured, origin
    )
    spec, only = settings["augment"].value, settings["augment_only"].value
    immutable_settings = immutable_settings_of(
        settings,
        fields_of(task.config_class, TrainConfig),
        task=task.name,
        data_fingerprint=train_set.fingerprint(),
        **augmentation_fact(train_set, spec, task.name, only=only),
    )
    return ResolvedSettings(settings, immutable_settings, build(task.config_class, settings))
