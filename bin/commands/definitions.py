"""Definitions of the commands of a task: their options, and the function that each one calls.

`--help` imports no torch.
"""

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from visionloop.bin.commands.options import (
    PATH,
    SectionCommand,
    device_option,
    given_settings,
    json_option,
    option,
    options_from,
    threads_option,
    traceback_option,
    trained_model_option,
    workers_option,
)
from visionloop.bin.commands.startup import command_began, heavy_imports, use_threads
from visionloop.engine.config.options import Recipe, resolve
from visionloop.engine.config.train_config import TrainConfig

if TYPE_CHECKING:
    from visionloop.engine.task import Task

LoadTaskClass: TypeAlias = "Callable[[], type[Task]]"

config_option = option(
    "--config",
    "config_file",
    type=PATH,
    help="File of settings: the settings.json of a run, or a json object {name: value}",
)


def launcher_of(load_task_class: LoadTaskClass) -> str:
    """Return the file of the launcher that a task's commands are in."""
    return str(sys.modules[load_task_class.__module__].__file__)


def train_command(
    name: str, config_class: type, load_task_class: LoadTaskClass, recipe: Recipe | None
) -> click.Command:
    @click.command(
        "train", cls=SectionCommand, help="Train a model, or resume the run in --output."
    )
    @options_from(config_class, TrainConfig)
    @config_option
    @option("--dry-run", is_flag=True, help="Print every setting with its source, and do not train")
    @option(
        "--seeds",
        type=click.IntRange(1),
        group="Output",
        help="Train this number of runs one after another, with seeds from --seed on, into "
        "OUTPUT/seed_0 and so on, and summarise them in OUTPUT/seeds.json; finished ones are not "
        "trained again. --budget is the time of each run",
    )
    @traceback_option
    def train(config_file: str | None, dry_run: bool, seeds: int | None, **flags: object) -> None:
        if seeds and not dry_run:
            from visionloop.bin.commands.seeds import SeedsCommand, train_seeds

            command = SeedsCommand(
                launcher=launcher_of(load_task_class),
                task=name,
                flags=flags,
                config_file=config_file,
                settings=resolve(
                    (config_class, TrainConfig), flags, recipe=recipe, config_file=config_file
                ),
                count=seeds,
            )
            raise SystemExit(train_seeds(command))
        with heavy_imports():
            from visionloop.bin.commands.train import run_train

            task_class = load_task_class()
        run_train(task_class, flags, config_file=config_file, dry_run=dry_run)

    train.config_classes, train.recipe = (config_class, TrainConfig), recipe
    return train


def check_command(
    config_class: type, load_task_class: LoadTaskClass, recipe: Recipe | None
) -> click.Command:
    @click.command(
        "check",
        cls=SectionCommand,
        help="Check the data, the first loss, and the time, memory and disk space that a run would "
        "take. With --overfit N, also test that the model can overfit N images, which takes "
        "minutes. Takes the options of train.",
    )
    @options_from(config_class, TrainConfig)
    @config_option
    @option(
        "--sheet",
        type=PATH,
        group="Output",
        help="PNG file to write with training images as the network gets them, and their targets",
    )
    @option(
        "--no-estimate",
        is_flag=True,
        help="Check the data only: no step is trained, and nothing is said about loss, time, "
        "memory and disk space. Without effect with --overfit",
    )
    @json_option("Print one json object with errors, warnings, classes and estimate")
    @traceback_option
    def check(
        config_file: str | None,
        as_json: bool,
        sheet: str | None,
        no_estimate: bool,
        **flags: object,
    ) -> None:
        with heavy_imports():
            from visionloop.bin.commands.check import run_check

            task_class = load_task_class()
        raise SystemExit(
            run_check(
                task_class,
                flags,
                config_file=config_file,
                as_json=as_json,
                sheet=sheet,
                has_estimate=not no_estimate,
                began=command_began(),
            )
        )

    check.config_classes, check.recipe = (config_class, TrainConfig), recipe
    return check


def evaluate_command(
    config_class: type, load_task_class: LoadTaskClass, score_options: Sequence[str]
) -> click.Command:
    @click.command(
        "evaluate",
        cls=SectionCommand,
        help="Score a trained model, or saved predictions, on a split of the data.",
    )
    @option(
        "--model",
        type=PATH,
        group="Model",
        help="Folder of the model: best/ of a run, a checkpoint, or any Hugging Face folder",
    )
    @option(
        "--predictions",
        type=PATH,
        group="Model",
        help="Saved predictions to score instead of a model; formats: see the README of the task",
    )
    @option("--data", type=PATH, required=True, group="Data", help="Data folder")
    @option(
        "--split",
        type=click.Choice(["train", "val", "test"]),
        default="val",
        show_default=True,
        group="Data",
        help="Split of the data to score",
    )
    @option(
        "--val-split",
        type=float,
        default=0.0,
        show_default=True,
        group="Data",
        help="Share of train/ that the run validated on, where the data has no val/ folder",
    )
    @option(
        "--output",
        type=PATH,
        group="Output",
        help="JSON file to write with the scores; charts are written beside it",
    )
    @option(
        "--save-predictions",
        type=PATH,
        group="Output",
        help="File to write with the predictions, for a later --predictions",
    )
    @option(
        "--operating-point",
        metavar="RULE",
        group="Output",
        help="Choose the score threshold of each class on the validation images and store it in "
        "config.json and the card of --model, where predict reads it. f1: the largest F1; "
        "precision=P: the largest recall with at least this precision; recall=R: the largest "
        "precision with at least this recall; matches count from IoU 0.5 on",
    )
    @option(
        "--batch-size",
        type=click.IntRange(1),
        default=32,
        show_default=True,
        group="Evaluation",
        help="Images that are evaluated at once",
    )
    @workers_option("Worker processes that read images")
    @options_from(config_class, only=score_options)
    @device_option
    @threads_option
    @json_option("Print one json object {metric key: value} instead of a table")
    @traceback_option
    def evaluate(threads: int | None, **options: Any) -> None:  # type: ignore[explicit-any]  # of click
        with heavy_imports():
            from visionloop.bin.commands.evaluate import EvaluateOptions, run_evaluate

            task_class = load_task_class()
        use_threads(threads)
        settings = given_settings(config_class, score_options, options)
        run_evaluate(task_class, EvaluateOptions(settings=settings, **options))

    evaluate.config_classes = (config_class,)
    return evaluate


def predict_command(
    config_class: type,
    load_task_class: LoadTaskClass,
    explanations: Sequence[str],
    predict_options: Sequence[str],
    predict_batch: int,
) -> click.Command:
    @click.command(
        "predict",
        cls=SectionCommand,
        help="Run a model on images: write predictions.jsonl, images with the predictions drawn "
        "and a contact sheet. After a stop the same command resumes.",
    )
    @trained_model_option
    @option(
        "--input",
        "input_path",
        type=PATH,
        required=True,
        group="Data",
        help="Image, or folder that is searched for images at any depth",
    )
    @option(
        "--output",
        type=PATH,
        required=True,
        group="Output",
        help="Folder to write: absent, empty, or an earlier output of this command. Unfinished "
        "predictions are in OUTPUT.part",
    )
    @option(
        "--batch-size",
        type=click.IntRange(1),
        default=predict_batch,
        show_default=True,
        group="Precision and memory",
        help="Images that are predicted at once",
    )
    @workers_option("Worker processes that read images ahead")
    @option(
        "--no-images",
        is_flag=True,
        group="Output",
        help="Write predictions only: no images/ and no contact sheet",
    )
    @options_from(config_class, only=predict_options)
    @device_option
    @threads_option
    @json_option("Also print the lines of predictions.jsonl, in input order")
    @traceback_option
    def predict(threads: int | None, no_images: bool, **options: Any) -> None:  # type: ignore[explicit-any]  # of click
        with heavy_imports():
            from visionloop.bin.commands.predict import PredictOptions, run_predict

            task_class = load_task_class()
        use_threads(threads)
        chosen = [kind for kind in explanations if options.pop(kind)]
        settings = given_settings(config_class, predict_options, options)
        raise SystemExit(
            run_predict(
                task_class,
                PredictOptions(
                    explanations=chosen, images=not no_images, settings=settings, **options
                ),
            )
        )

    for kind in explanations:
        help = f"Also draw the {kind} of the model over each image, into {kind}/"
        predict = option(f"--{kind}", is_flag=True, group="Output", help=help)(predict)
    predict.config_classes = (config_class,)
    return predict


def replay_command(load_task_class: LoadTaskClass) -> click.Command:
    @click.command(
        "replay",
        cls=SectionCommand,
        help="Repeat one step of a run and show its images, samples, loss terms and the gradient "
        "norm of each parameter group.",
    )
    @option(
        "--run",
        type=PATH,
        required=True,
        group="Data",
        help="Folder of the run, which is not changed",
    )
    @option(
        "--step",
        required=True,
        type=int,
        group="Data",
        help="Step to repeat, as logs and messages count: the first step is 1",
    )
    @option(
        "--output",
        type=PATH,
        group="Output",
        help="Folder to write: absent, empty, or an earlier replay (default: replay_step_STEP)",
    )
    @device_option
    @json_option("Print one json object, the same as in replay.json, instead of lines")
    @traceback_option
    def replay(**options: Any) -> None:  # type: ignore[explicit-any]  # of click
        with heavy_imports():
            from visionloop.bin.commands.replay import run_replay

            task_class = load_task_class()
        run_replay(task_class, **options)

    return replay


def export_command(load_task_class: LoadTaskClass) -> click.Command:
    @click.command(
        "export",
        cls=SectionCommand,
        help="Write a Hugging Face folder with a model card, and check it by loading it back.",
    )
    @trained_model_option
    @option(
        "--output",
        type=PATH,
        required=True,
        group="Output",
        help="Folder to write: absent, empty, or an earlier export",
    )
    @option(
        "--onnx",
        is_flag=True,
        group="Output",
        help="Also write model.onnx, and compare its outputs with PyTorch's",
    )
    @traceback_option
    def export(model: str, output: str, onnx: bool) -> None:
        with heavy_imports():
            from visionloop.bin.commands.export import run_export

            task_class = load_task_class()
        run_export(task_class, model=model, output=output, onnx=onnx)

    return export


def health_command(load_task_class: LoadTaskClass) -> click.Command:
    @click.command(
        "health",
        cls=SectionCommand,
        help="Check whether this machine can train: packages, devices, disks and shared memory. "
        "The exit code is 1 if it cannot.",
    )
    @device_option
    @json_option("Print one json object instead of lines")
    @traceback_option
    def health(device: str | None, as_json: bool) -> None:
        from visionloop.bin.commands.health import run_health

        raise SystemExit(run_health(load_task_class, device, as_json=as_json))

    return health
