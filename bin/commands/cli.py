"""The commands of a task, `train evaluate predict check replay export health completion`, from its settings. `--help` imports no torch."""

import gc
import os
import re
import sys
from contextlib import contextmanager

import click
from click.shell_completion import CompletionItem, get_completion_class

from visionloop.engine.config.options import check_value, fields_of, options_from
from visionloop.engine.config.suggest import did_you_mean
from visionloop.engine.config.train_config import TrainConfig
from visionloop.engine.errors import STOPPED, USER_ERROR, LostProcess, UserError

# What was typed, put to use. No torch before it is needed.


def given_settings(config_class, names, options):
    """{name: value} of the settings that were typed, taken out of `options`. Raises UserError for a value out of its range."""
    fields = fields_of(config_class)
    given = {name: value for name in names if (value := options.pop(name)) is not None}
    for name, value in given.items():
        check_value(name, *fields[name], value)
    return given


def use_threads(count):
    """Compute with so many threads; None: as many as torch takes by itself."""
    if count:
        import torch

        torch.set_num_threads(count)


# `completion`: what a shell needs to complete the installed command. No torch here: a shell asks at
# every key press.

SHELLS = ("bash", "zsh", "fish")
INSTALL = {
    "bash": 'eval "$({program} completion bash)" in ~/.bashrc',
    "zsh": 'eval "$({program} completion zsh)" in ~/.zshrc, after compinit',
    "fish": "{program} completion fish | source in ~/.config/fish/config.fish",
}
PATHS = {
    "data": "dir", "output": "dir", "run": "dir", "model": "dir", "resume": "dir", "input_path": "file", "predictions": "file",
    "config_file": "file", "lpips_weights": "file",
}  # fmt: skip


class PathText(click.types.StringParamType):
    """A text that a shell completes to files or folders."""

    def __init__(self, kind):
        self.kind = kind

    def shell_complete(self, ctx, param, incomplete):
        return [CompletionItem(incomplete, type=self.kind)]


def program_of(group_name):
    """What the commands of a task are installed as."""
    return f"visionloop-{group_name.replace('_', '-')}"


def add_completion(group):
    """Give a group the command `completion`, and all its commands options that complete to paths."""
    for command in group.commands.values():
        for param in command.params:
            if param.name in PATHS and param.type is click.STRING:
                param.type = PathText(PATHS[param.name])
    program = program_of(group.name)

    @click.command("completion", short_help="Print what a shell needs to complete this command.")
    @click.argument("shell", type=click.Choice(SHELLS))
    def completion(shell):
        complete_var = (
            f"_{program.replace('-', '_').upper()}_COMPLETE"  # the one that click looks for
        )
        click.echo(get_completion_class(shell)(group, {}, program, complete_var).source())

    completion.help = "Print what a shell needs to complete this command. Put\n\n\b\n" + "\n".join(
        line.format(program=program) for line in INSTALL.values()
    )
    group.add_command(completion)


# Imports that take seconds.


@contextmanager
def heavy_imports():
    """Within the block, which imports torch and transformers, nobody looks for garbage; nor later among what the imports made.

    Of the 700 000 objects made there nearly all stay, and going through them takes a sixth of the
    time of these imports, and 0.2 s each time that the collector does it in mid-training; what is
    garbage and stays takes 8 MiB (measured). Where torch is there already, as in a test, nothing is
    changed: objects of others must not be kept for good.
    """
    if "torch" in sys.modules:
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


# Options that several commands share.

model_option = click.option(
    "--model", required=True, help="a run's best/, a checkpoint folder, or any Hugging Face folder"
)
device_option = click.option(
    "--device", type=click.Choice(["cuda", "mps", "cpu"]), help="default: the best there is"
)
threads_option = click.option(
    "--threads", type=click.IntRange(1), help="threads of this process  [default: all cores]"
)
# read from the arguments themselves: an error may come before they are parsed
traceback_option = click.option(
    "--traceback", is_flag=True, expose_value=False, help="show where an error comes from"
)


def json_option(help):
    return click.option("--json", "as_json", is_flag=True, help=help)


# before torch is there: every rank would print a long warning of what engine/prepare.py does to DDP
# on purpose
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def task_commands(
    name,
    config_class,
    load_task_class,
    *,
    explanations=(),
    score_options=(),
    predict_options=(),
    predict_batch=32,
):
    """A click group. load_task_class() imports and returns the Task.

    explanations: kinds of `Task.explain`, switches of `predict`; score_options, predict_options:
    settings of the config class that `evaluate` and `predict` have too, for `Task.load_trained`;
    predict_batch: images that `predict` holds at a time, by default.
    """
    group = click.Group(
        name,
        help=f"Train and use models for {name.replace('_', '-')}.",
        context_settings={"max_content_width": 120},
    )
    group.add_command(train_command(config_class, load_task_class))
    group.add_command(evaluate_command(config_class, load_task_class, score_options))
    group.add_command(
        predict_command(config_class, load_task_class, explanations, predict_options, predict_batch)
    )
    group.add_command(check_command(config_class, load_task_class))
    group.add_command(replay_command(load_task_class))
    group.add_command(export_command(load_task_class))
    group.add_command(health_command(load_task_class))
    add_completion(group)
    return group


def train_command(config_class, load_task_class):
    @click.command("train", help="Train, or go on with the run in --output.")
    @options_from(config_class, TrainConfig)
    @click.option(
        "--config", "config_file", help="settings.json of a run, or a json object of settings"
    )
    @click.option("--dry-run", is_flag=True, help="print every setting with its source and stop")
    @traceback_option
    def train(config_file, dry_run, **flags):
        with heavy_imports():
            from visionloop.bin.commands.train import run_train

            task_class = load_task_class()
        run_train(task_class, flags, config_file=config_file, dry_run=dry_run)

    return train


def evaluate_command(config_class, load_task_class, score_options):
    @click.command(
        "evaluate", help="Score a trained model, or predictions that exist already, on a split."
    )
    @click.option("--model", help="a run's best/, a checkpoint folder, or any Hugging Face folder")
    @click.option(
        "--predictions",
        help="instead of a model: answers such as `predict` writes; the task's page says which",
    )
    @click.option("--data", required=True, help="data folder")
    @click.option(
        "--split", type=click.Choice(["train", "val", "test"]), default="val", show_default=True
    )
    @click.option(
        "--val-split",
        type=float,
        default=0.0,
        help="share of train/ that training set aside, where there is no val/",
    )
    @click.option(
        "--output",
        help="FILE.json for the scores; images such as a confusion matrix go beside it",
    )
    @click.option(
        "--save-predictions", help="file for the model's answers, which --predictions reads"
    )
    @click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True)
    @click.option("--workers", type=click.IntRange(0), default=0, show_default=True, help="workers")
    @options_from(config_class, only=score_options)
    @device_option
    @threads_option
    @json_option("print one object {metric key: value} instead of the table")
    @traceback_option
    def evaluate(threads, **options):
        with heavy_imports():
            from visionloop.bin.commands.evaluate import run_evaluate

            task_class = load_task_class()
        use_threads(threads)
        settings = given_settings(config_class, score_options, options)
        run_evaluate(task_class, settings=settings, **options)

    return evaluate


def predict_command(config_class, load_task_class, explanations, predict_options, predict_batch):
    @click.command(
        "predict",
        help="Answer for images: predictions.jsonl, labelled images, a contact sheet. Stopped, it goes on.",
    )
    @model_option
    @click.option(
        "--input", "input_path", required=True, help="an image, or a folder searched at any depth"
    )
    @click.option(
        "--output",
        required=True,
        help="folder to write, absent, empty or an earlier one of ours; grows as OUTPUT.part",
    )
    @click.option("--batch-size", type=click.IntRange(1), default=predict_batch, show_default=True)
    @click.option(
        "--workers",
        type=click.IntRange(0),
        default=0,
        show_default=True,
        help="workers that read images ahead",
    )
    @click.option(
        "--no-images", is_flag=True, help="answers alone: no images/ and no contact sheet"
    )
    @options_from(config_class, only=predict_options)
    @device_option
    @threads_option
    @json_option("also print the lines, in input order")
    @traceback_option
    def predict(threads, **options):
        with heavy_imports():
            from visionloop.bin.commands.predict import run_predict

            task_class = load_task_class()
        use_threads(threads)
        wanted = [kind for kind in explanations if options.pop(kind)]
        settings = given_settings(config_class, predict_options, options)
        images = not options.pop("no_images")
        raise SystemExit(
            run_predict(
                task_class, explanations=wanted, images=images, settings=settings, **options
            )
        )

    for kind in explanations:
        predict = click.option(
            f"--{kind}", is_flag=True, help=f"also draw the {kind} over each image"
        )(predict)
    return predict


def check_command(config_class, load_task_class):
    @click.command(
        "check",
        help="Look for mistakes before training: data, first loss, time, memory; --overfit N: that it learns.",
    )
    @options_from(config_class, TrainConfig)
    @click.option(
        "--config", "config_file", help="settings.json of a run, or a json object of settings"
    )
    @click.option(
        "--sheet",
        help="FILE.png to write: training images as the network sees them, with their targets",
    )
    @json_option("print one object with errors, warnings, classes and estimate")
    @traceback_option
    def check(config_file, as_json, sheet, **flags):
        with heavy_imports():
            from visionloop.bin.commands.check import run_check
            from visionloop.bin.commands.train import command_began

            task_class = load_task_class()
        began = command_began()
        raise SystemExit(
            run_check(
                task_class,
                flags,
                config_file=config_file,
                as_json=as_json,
                sheet=sheet,
                began=began,
            )
        )

    return check


def replay_command(load_task_class):
    @click.command(
        "replay",
        help="Show one step of a run: its images and samples, each loss term, the gradient of each parameter group.",
    )
    @click.option("--run", required=True, help="the run's folder, which is not written to")
    @click.option(
        "--step", required=True, type=int, help="as logs and messages count: the first step is 1"
    )
    @click.option(
        "--output",
        help="folder to write; must be absent, empty, or an earlier replay  [default: replay_step_STEP]",
    )
    @device_option
    @json_option("print one object instead of lines, the same as in replay.json")
    @traceback_option
    def replay(**options):
        with heavy_imports():
            from visionloop.bin.commands.replay import run_replay

            task_class = load_task_class()
        run_replay(task_class, **options)

    return replay


def export_command(load_task_class):
    @click.command(
        "export", help="Write a Hugging Face folder with a model card, checked by loading it back."
    )
    @model_option
    @click.option(
        "--output",
        required=True,
        help="folder to write; must be absent, empty, or an earlier export",
    )
    @click.option("--onnx", is_flag=True, help="also model.onnx, checked against PyTorch")
    @traceback_option
    def export(**options):
        with heavy_imports():
            from visionloop.bin.commands.export import run_export

            task_class = load_task_class()
        run_export(task_class, **options)

    return export


def health_command(load_task_class):
    @click.command(
        "health",
        help="Whether this machine can train: libraries, devices, disks, shared memory. Exit code 1 where it cannot.",
    )
    @device_option
    @json_option("print one object instead of lines")
    @traceback_option
    def health(device, as_json):
        from visionloop.bin.commands.health import run_health

        raise SystemExit(run_health(load_task_class, device, as_json=as_json))

    return health


def run_commands(group, arguments=None):
    """Run a group as a program: a mistake of the user is one line on stderr and exit code 2; `--traceback` shows the whole story.

    Ctrl-C in a command that does not see to it itself is one line too, and exit code 75.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        group.main(args=list(arguments), prog_name=program_of(group.name), standalone_mode=False)
    except UserError as error:
        _refuse(str(error), error, arguments)
    except click.exceptions.NoSuchOption as error:
        near = f"; did you mean {error.possibilities[0]}?" if error.possibilities else ""
        _refuse(f"{error.option_name}: no such option{near}", error, arguments)
    except click.BadParameter as error:
        kind, typed = (
            getattr(error.param, "type", None),
            re.match(r"'(.*)' is not one of", error.message),
        )
        near = (
            did_you_mean(typed[1], kind.choices) if typed and isinstance(kind, click.Choice) else ""
        )
        _refuse(
            " ".join(error.format_message().split()).removesuffix("." if near else "") + near,
            error,
            arguments,
        )
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)  # the help, line by line
        raise SystemExit(USER_ERROR) from None
    except click.UsageError as error:
        _refuse(" ".join(error.format_message().split()), error, arguments)
    except click.Abort as error:
        if not isinstance(error.__cause__, KeyboardInterrupt) or "--traceback" in arguments:
            raise (
                error.__cause__ or error
            ) from None  # an EOFError, a defect of ours, is a wish to stop to click
        click.echo("stopped; the same command can be run again", err=True)
        raise SystemExit(STOPPED) from None
    except click.exceptions.Exit as error:
        raise SystemExit(error.exit_code) from None


def _refuse(message, error, arguments):
    if "--traceback" in arguments:
        raise error
    # under torchrun most mistakes are seen by every process: the first tells them plainly
    rank = os.environ.get("RANK", "0")
    click.echo(
        f"error: {message}" if rank == "0" else f"error (process {rank}): {message}", err=True
    )
    raise SystemExit(STOPPED if isinstance(error, LostProcess) else USER_ERROR)
