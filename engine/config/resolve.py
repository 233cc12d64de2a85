"""What a run may change when it goes on, where it starts, and what is resolved once and kept."""

import json
import math
from pathlib import Path

from visionloop.engine.config.options import AUTO, Setting, build, fields_of, flag_of
from visionloop.engine.config.train_config import TrainConfig
from visionloop.engine.errors import UserError
from visionloop.engine.system.cores import share_cores

DEFAULT_MICRO_BATCH = 32
UNSIZED = 1000  # steps of a run with a budget, until it is known how many fit
LENGTHS = ("steps", "epochs", "budget")


def output_folder(settings, task_name):
    """The run's folder from --output, --run-name, or task, data folder and model; no time stamp, so the same command continues."""
    value = {name: setting.value for name, setting in settings.items()}
    if value["output"] and value["run_name"]:
        raise UserError(
            "--run-name: is short for --output runs/NAME; give one of the two", field="run_name"
        )
    if value["output"]:
        return Path(value["output"])
    name = (
        value["run_name"]
        or f"{task_name}-{Path(value['data'] or '.').resolve().name}-{Path(str(value['model'])).name}"
    )
    return Path("runs") / name


def resolve_auto(settings, num_samples, device_type, stored, settle, found=None):
    """Fill what defaults to None. Returns new settings.

    stored: the run's settings.json, whose auto values are kept; settle(values, steps): the task's
    own defaults, see Task; found: {name: value} of what was measured on this machine.
    """
    found = found or {}
    value = {
        name: None if setting.value == AUTO else setting.value for name, setting in settings.items()
    }
    steps, workers_and_threads = (
        found.get("steps") or length_of_run(settings, num_samples, stored),
        share_cores(device_type),
    )
    steps_per_epoch = math.ceil(num_samples / value["batch_size"])
    computed = {
        "steps": steps,
        "micro_batch": DEFAULT_MICRO_BATCH,
        "warmup_steps": round(0.05 * steps),
        "eval_every": max(steps_per_epoch, math.ceil(steps / 20)),
        "save_every": max(1, min(1000, steps // 10)),
        "workers": workers_and_threads[0],
        "threads": workers_and_threads[1],
        "device": device_type,
    } | settle(value, steps)
    resolved = dict(settings)
    for name, number in (computed | found).items():
        if value[name] is None or (name == "steps" and steps != value["steps"]):
            kept = stored.get(name, {})
            # what was resolved at the first start stays, except what belongs to the machine, and
            # the length, which must not change
            use_kept = kept.get("source") == "auto" and name not in (
                "workers",
                "device",
                "steps",
                *found,
            )
            resolved[name] = Setting(kept["value"] if use_kept else number, "auto")
    return resolved


def given_length(settings):
    """Which of --steps, --epochs and --budget decides: the one that was said with most weight (flag, config file, recipe).

    Raises UserError where none is given, or two with the same weight.
    """
    weight = ("default", "recipe", "config", "flag")
    given = [name for name in LENGTHS if settings[name].value is not None]
    if not given:
        raise UserError(
            "--epochs or --steps: one of the two is needed, or --budget, a time", field="steps"
        )
    said = {name: weight.index(settings[name].source.split()[0]) for name in given}
    most = [name for name in given if said[name] == max(said.values())]
    if len(most) > 1:
        last, *others = (flag_of(name) for name in reversed(most))
        message = f"{last}: give it or {' or '.join(reversed(others))}, not {'both' if len(most) == 2 else 'several'}"
        raise UserError(message, field=most[-1])
    return most[0]


def length_of_run(settings, num_samples, stored):
    """Optimizer steps, from --steps, --epochs or what was found to fit --budget at the first start; until that is known, UNSIZED."""
    given = given_length(settings)
    if given == "steps":
        return settings["steps"].value
    if given == "budget":
        return stored["steps"]["value"] if "steps" in stored else UNSIZED
    return max(1, math.ceil(settings["epochs"].value * num_samples / settings["batch_size"].value))


def immutable_settings_of(settings, known, **immutable_settings):
    """{name: value} of what must not change when the run continues. known: config.fields_of(...)."""
    # infinity as a text: a checkpoint's state.json has no number for it
    kept = {
        name: setting.as_json()["value"]
        for name, setting in settings.items()
        if known[name][0].metadata["fixed"]
    }
    return json.loads(json.dumps({**kept, **immutable_settings}, default=str))


def settle(task, given, world, train_set, stored, found=None):
    """(resolved settings, those that must not change) of given ones; the task is told of its own.

    stored: the run's settings.json, {} for a new run; found: {name: value} of what was measured.
    """
    task_class = type(task)
    settings = resolve_auto(
        given, len(train_set), world.device.type, stored, task_class.settle, found
    )
    task.config = build(
        task_class.config_class, settings
    )  # with what the length of the run decided
    known = fields_of(task_class.config_class, TrainConfig)
    return settings, immutable_settings_of(
        settings, known, task=task.name, data_fingerprint=train_set.fingerprint()
    )
