r"""One entry for platforms: arguments that name task, model and folders go to `train` of the task.

    python bin/train.py --framework huggingface --task_type image_classification \
        --model_name google/vit-base-patch16-224 --dataset_path images/ --output_path jobs/ \
        --epochs 10 --batch_size 32 --learning_rate 1e-4 --job_id 17
    torchrun --nproc-per-node 8 --shutdown-timeout 120 bin/train.py ...

Any other option of the task's `train` may follow, as in `--precision bf16`.
"""

from importlib import import_module
from pathlib import Path

import click

from visionloop.bin.commands.cli import run_commands
from visionloop.bin.commands.options import PATH
from visionloop.bin.model_zoo.listing import MODEL_ZOOS
from visionloop.tasks.model_zoo import FRAMEWORK

COMMANDS = {
    name: zoo.command.replace("-", "_") for zoo in MODEL_ZOOS for name in (zoo.value, zoo.command)
}
# the platform's name of an option -> the flag of the task's `train`
FLAGS = {
    "model_name": "model",
    "dataset_path": "data",
    "epochs": "epochs",
    "batch_size": "batch-size",
    "learning_rate": "lr",
}


@click.command(
    "train", context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]}
)
@click.option(
    "--framework",
    type=click.Choice([FRAMEWORK]),
    default=FRAMEWORK,
    show_default=True,
    help="Framework of the model",
)
@click.option(
    "--task_type",
    "--task-type",
    type=click.Choice(list(COMMANDS)),
    required=True,
    help="Task to train",
)
@click.option(
    "--model_name",
    "--model-name",
    required=True,
    help="Model to start from: an alias, a hub id or a local folder, as for --model",
)
@click.option(
    "--dataset_path",
    "--dataset-path",
    type=PATH,
    required=True,
    help="Data folder in the layout of the task",
)
@click.option(
    "--output_path",
    "--output-path",
    type=PATH,
    default="runs",
    show_default=True,
    help="The folder of the run is OUTPUT_PATH/JOB_ID",
)
@click.option(
    "--job_id",
    "--job-id",
    help="Name of the job; without it, or where OUTPUT_PATH ends with it, the folder of the run is "
    "OUTPUT_PATH",
)
@click.option("--epochs", type=float, help="Length of the run in passes over the training images")
@click.option(
    "--batch_size",
    "--batch-size",
    type=int,
    help="Samples of one optimizer step over all processes",
)
@click.option(
    "--learning_rate",
    "--learning-rate",
    type=float,
    help="Learning rate at the end of warm-up",
)
@click.argument("others", nargs=-1, type=click.UNPROCESSED)
def command(
    framework: str,
    task_type: str,
    output_path: str,
    job_id: str | None,
    others: tuple[str, ...],
    **options: str | float | None,
) -> None:
    """Train a model, or resume the run of the job. OTHERS: more options of the task's `train`."""
    if job_id is not None and (Path(job_id).name != job_id or job_id in (".", "..")):
        raise click.BadParameter(
            f"{job_id!r}: expected the name of a folder", param_hint="--job_id"
        )
    output = Path(output_path)
    if job_id and output.name != job_id:
        output /= job_id
    arguments = ["train", "--output", str(output)]
    for name, flag in FLAGS.items():
        if options[name] is not None:
            arguments += [f"--{flag}", str(options[name])]
    launcher = import_module(f"visionloop.bin.{COMMANDS[task_type]}")
    run_commands(launcher.commands, [*arguments, *others])


def main() -> None:
    run_commands(command)


if __name__ == "__main__":
    main()
