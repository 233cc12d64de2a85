"""Command-line options: those of settings, those that commands share, and `--help` in sections.

`train --help` shows the defaults of the recipe that the rest of the command line chooses. No torch
here: `--help` must be quick.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import click

from visionloop.engine.config.options import (
    GROUPS,
    Recipe,
    Setting,
    Settings,
    SettingSource,
    ValueType,
    check_value,
    fields_of,
    flag_of,
    resolve,
)
from visionloop.engine.errors import UserError

if TYPE_CHECKING:
    from visionloop.engine.types import JsonObject

T = TypeVar("T")
Decorator: TypeAlias = Callable[[Any], Any]  # type: ignore[explicit-any]  # as click's own

# click's ParamType is generic
PARAM_TYPES: dict[type, click.ParamType] = {  # type: ignore[explicit-any]
    int: click.INT,
    float: click.FLOAT,
}
# completed by the shell; what is wrong with a path is said by the command that reads it
PATH = click.Path(readable=False)
TYPED = f"{__name__}.typed"  # key in `Context.meta`: {parameter name: text} of the command line


class SectionOption(click.Option):
    """An option in a section of `--help`. setting: name of the setting that it gives a value to."""

    group: str
    setting: str | None

    def __init__(  # type: ignore[explicit-any]  # passed on to click as they are
        self, *args: Any, group: str = GROUPS[-1], setting: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        assert group in GROUPS, f"{group} is no section of --help"
        self.group, self.setting = group, setting


class SectionCommand(click.Command):
    """A command whose `--help` lists options by subject and shows the defaults that would be used.

    `config_classes` and `recipe`, where they are set, give the defaults of its settings.
    """

    config_classes: Sequence[type] = ()
    recipe: Recipe | None = None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # `--help` is answered before other options have a value, but its defaults depend on them
        ctx.meta[TYPED] = self.make_parser(ctx).parse_args(args=list(args))[0]
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        settings, problem = self._settings(ctx)
        sections: dict[str, list[tuple[str, str]]] = {group: [] for group in GROUPS}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is None:
                continue
            name, text = record
            if isinstance(param, SectionOption) and param.setting in settings:
                text += _default_text(settings[param.setting], settings)
            sections[getattr(param, "group", GROUPS[-1])].append((name, text))
        if self.recipe:
            with formatter.section("Defaults"):
                formatter.write_text(_explain_defaults(settings, problem))
        for group, rows in sections.items():
            if rows:
                with formatter.section(group):
                    formatter.write_dl(rows)

    def _settings(self, ctx: click.Context) -> tuple[Settings, str | None]:
        """Return the settings that this command line resolves to, and the mistake in it if any."""
        if not self.config_classes:
            return {}, None
        typed = ctx.meta.get(TYPED, {})
        flags = {name: typed.get(name) for name in fields_of(*self.config_classes)}
        file = typed.get("config_file")
        try:
            return resolve(self.config_classes, flags, recipe=self.recipe, config_file=file), None
        except UserError as error:
            return resolve(self.config_classes, {}, recipe=self.recipe), str(error)


def _explain_defaults(settings: Settings, problem: str | None) -> str:
    """Return the line that names the model and preset of the defaults."""
    if settings["model"].value is None:
        return "The defaults below are those of every model."
    start = f"--model {settings['model'].value}, --preset {settings['preset'].value}"
    text = f"The defaults below are those of {start}. "
    if problem:
        return f"{text}They do not follow the rest of this command line ({problem})."
    others = "--model, --preset, --from-scratch or --data"
    return f"{text}To see those of another model or preset, add {others} to this command line."


def _default_text(setting: Setting, settings: Settings) -> str:
    """Return the end of a help text: "  [default: 3e-4, preset finetune]"."""
    value = setting.as_json()["value"]
    if value is None:
        return ""
    text = _number_text(value) if isinstance(value, float) else str(value)
    if isinstance(value, bool):
        text = str(value).lower()
    if setting.source == SettingSource.RECIPE and setting is not settings["preset"]:
        return f"  [default: {text}, preset {settings['preset'].value}]"
    if setting.source in (SettingSource.DEFAULT, SettingSource.RECIPE):
        return f"  [default: {text}]"
    return f"  [given: {text}]" if setting.file is None else f"  [{setting.file}: {text}]"


def _number_text(value: float) -> str:
    """Format a number as people write it: 3e-4, 0.05, 1800."""
    if value == 0 or abs(value) >= 0.01:
        return f"{value:.6g}"
    digits, exponent = f"{value:.5e}".split("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(exponent)}"


def options_from(*classes: type, only: Iterable[str] | None = None) -> Decorator:
    """Return a decorator that adds one click option for each field of the config classes.

    An option that is not given arrives as None, so that a flag can be told from a default. only:
    names of the fields that become options; None: all.
    """
    fields = fields_of(*classes)

    def decorate(command: T) -> T:
        for name in reversed(list(fields if only is None else only)):
            command = _setting_option(name, *fields[name])(command)
        return command

    return decorate


def _setting_option(name: str, item: "dataclasses.Field[object]", kind: ValueType) -> Decorator:
    """Return the click option of one setting."""
    flag = flag_of(name)
    option_type: click.ParamType | None = None  # type: ignore[explicit-any]  # generic
    if isinstance(kind, tuple):
        option_type = click.Choice(kind)
    elif item.metadata["is_path"]:
        option_type = PATH
    elif kind is not bool:
        option_type = PARAM_TYPES.get(kind, click.STRING)
    return click.option(
        # a switch that is on by default is worth a --no- form; so is one that a recipe may turn on
        f"{flag}/--no-{flag[2:]}" if kind is bool else flag,
        name,
        type=option_type,
        default=None,
        help=item.metadata["help"],
        cls=SectionOption,
        group=item.metadata["group"],
        setting=name,
    )


def given_settings(config_class: type, names: Iterable[str], options: "JsonObject") -> "JsonObject":
    """Take {name: value} of the settings that were typed out of a command's options.

    Raises UserError for a value that is out of range.
    """
    fields = fields_of(config_class)
    given = {name: value for name in names if (value := options.pop(name)) is not None}
    for name, value in given.items():
        check_value(name, *fields[name], value)
    return given


def option(*flags: str, group: str = GROUPS[-1], **attributes: Any) -> Decorator:  # type: ignore[explicit-any]  # those of click.option
    """Return a click option in a section of `--help`."""
    return click.option(*flags, cls=SectionOption, group=group, **attributes)


# Options that several commands share.

trained_model_option = option(
    "--model",
    required=True,
    type=PATH,
    group="Model",
    help="Folder of the model: best/ of a run, a checkpoint, or any Hugging Face folder",
)
device_option = option(
    "--device",
    type=click.Choice(["cuda", "mps", "cpu"]),
    group="Machine",
    help="Device to compute on (default: the first of these there is)",
)
threads_option = option(
    "--threads",
    type=click.IntRange(1),
    group="Machine",
    help="CPU threads of this process (default: all cores)",
)
# read from the arguments themselves: an error may come before they are parsed
traceback_option = option(
    "--traceback",
    is_flag=True,
    expose_value=False,
    help="Show the whole traceback of an error instead of one line",
)


def json_option(help: str) -> Decorator:
    """Return the switch `--json`, whose help is this text."""
    return option("--json", "as_json", is_flag=True, group="Output", help=help)


def workers_option(help: str) -> Decorator:
    """Return `--workers`, 0 by default."""
    return option(
        "--workers",
        type=click.IntRange(0),
        default=0,
        show_default=True,
        group="Machine",
        help=help,
    )
