"""Settings of a request made into words of a command line: names, values and paths are checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from visionloop.bin.web.config import StudioConfig
from visionloop.bin.web.problems import Problem
from visionloop.bin.web.security.augmentation import require_named
from visionloop.bin.web.security.roots import resolve_below
from visionloop.bin.web.tables.settings import NOT_SETTABLE, Value
from visionloop.bin.web.tables.tables import model_name, zoo_of
from visionloop.engine.config.options import (
    Setting,
    Settings,
    SettingSource,
    coerce,
    fields_of,
    flag_of,
    resolve,
)
from visionloop.engine.config.resolve import given_length
from visionloop.engine.config.suggest import did_you_mean
from visionloop.engine.config.train_config import TrainConfig
from visionloop.engine.errors import UserError


@dataclass(frozen=True)
class TaskOptions:
    """Words of a command line, and the settings they resolve to.

    Attributes:
        task: name of the task's command.
        words: options, `--output` not among them.
        settings: as `train` will resolve them without the data; None where they are wrong.
        problems: mistakes that `train` would refuse, and paths outside the roots.
    """

    task: str
    words: tuple[str, ...]
    settings: Settings | None
    problems: tuple[Problem, ...]


def task_options(
    task: str, given: Mapping[str, Value], config: StudioConfig, *, needs_length: bool = True
) -> TaskOptions:
    """Return the command-line options of settings.

    Args:
        task: name or type of the task.
        given: {name: value} as in settings.json; None: not given.
        config: of the server, for its roots.
        needs_length: steps, epochs or a budget must be there or follow from the recipe.

    Raises Problem for an unknown task.
    """
    zoo = zoo_of(task)
    fields = fields_of(zoo.config_class, TrainConfig)
    values: dict[str, object] = {}
    problems: list[Problem] = []
    for name, value in given.items():
        try:
            if name in NOT_SETTABLE:
                raise UserError(f"{name}: not a setting here; {NOT_SETTABLE[name]}", field=name)
            if name not in fields:
                hint = did_you_mean(name, set(fields) - set(NOT_SETTABLE))
                raise UserError(f"unknown setting {name!r}{hint}", field=name)
            if value is None:
                continue
            if isinstance(value, str):
                require_text(name, value)
            if value != value:
                raise UserError(f"{flag_of(name)}: expected a number, got nan", field=name)
            if name == "augment":
                require_named(str(value), config)
            item, kind = fields[name]
            values[name] = coerce(name, item, kind, value)
            if item.metadata["is_path"] or name == "model":
                values[name] = allowed_path(task, name, str(value), config)
        except Problem as problem:
            problems.append(problem)
        except UserError as error:
            problems.append(Problem.of(error))
    settings = None
    try:
        settings = resolve((zoo.config_class, TrainConfig), values, recipe=zoo.recipe)
        if needs_length:
            given_length(settings)
    except UserError as error:
        problems.append(Problem.of(error))
    if not given.get("data"):
        problems.append(Problem(422, "bad_input", "data: expected a folder", field="data"))
    words = tuple(word for name, value in values.items() for word in words_of(name, value))
    return TaskOptions(zoo.command, words, settings, tuple(problems))


def require_text(name: str, value: str) -> None:
    """Raise UserError for a text that no argument of a program can be."""
    if not value.isprintable():
        raise UserError(f"{flag_of(name)}: expected printable characters", field=name)


def allowed_path(task: str, name: str, value: str, config: StudioConfig) -> str:
    """Return a path below the roots, or a model of the zoo. Raises Problem for any other one."""
    if name == "model":
        return model_name(zoo_of(task), value, config)
    roots = config.data if name == "data" else (*config.models, *config.data)
    path = resolve_below(value, roots, name)
    if name == "data" and not path.is_dir():
        raise Problem(422, "bad_input", f"data: {path}: no such folder", field="data")
    return str(path)


def words_of(name: str, value: object) -> tuple[str, ...]:
    """Return a setting as words. One that begins with a dash cannot become another option."""
    flag = flag_of(name)
    if isinstance(value, bool):
        return (flag if value else f"--no-{flag[2:]}",)
    text = str(Setting(value, SettingSource.FLAG).as_json()["value"])
    return (f"{flag}={text}",) if not text or text.startswith("-") else (flag, text)


def plain_name(text: str) -> str:
    """Return a name for a folder: letters, digits, dots, dashes and underscores alone."""
    kept = "".join(one if one.isalnum() or one in "._-" else "-" for one in text)
    return kept.lstrip(".-")[:60] or "run"


def require_run_name(name: str) -> None:
    """Raise Problem unless the name is that of one plain folder."""
    is_plain = name.isprintable() and "/" not in name and "\\" not in name
    fits = 0 < len(name) <= 100 and len(name.encode(errors="replace")) <= 200
    if not (is_plain and fits) or name.startswith((".", "-")) or name != name.strip():
        raise Problem(
            422,
            "bad_input",
            "run_name: expected the name of a folder: no slash, no dot or dash at its start, 100 "
            "characters at most",
            field="run_name",
        )


def default_run_name(options: TaskOptions) -> str:
    """Return task-data-model, as `train` calls a run."""
    if options.settings is None:
        return f"{options.task}-run"
    data = Path(str(options.settings["data"].value)).name
    model = Path(str(options.settings["model"].value)).name
    return "-".join((options.task, plain_name(data), plain_name(model)))
