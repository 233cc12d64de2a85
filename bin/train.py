r"""One entry for platforms: an argument list that names task, model and folders, handed on to the task's own `train`.

    python bin/train.py --framework huggingface --task_type image_classification --model_name
    google/vit-base-patch16-224 \
        --dataset_path images/ --output_path jobs/ --epochs 10 --batch_size 32 --learning_rate
        1e-4 --job_id 17
    torchrun --nproc-per-node 8 --shutdown-timeout 120 bin/train.py ...

Whatever else `train` of the task knows may follow, as in `--precision bf16`.
"""

from importlib import import_module
from pathlib import Path

import click

from visionloop.bin.commands.cli import run_commands
from visionloop.bin.model_zoo.listing import TABLES
from visionloop.tasks.model_zoo import FRAMEWORK

COMMANDS = {
    name: table.command.replace("-", "_")
    for table in TABLES
    for name in (table.value, table.command)
}
# ours by the platform's name
SETTINGS = {
    "model_name": "model",
    "dataset_path": "data",
    "epochs": "epochs",
    "batch_size": "batch-size",
    "learning_rate": "lr",
}


@click.command(
    "train", context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]}
)
@click.option("--framework", type=click.Choice([FRAMEWORK]), default=FRAMEWORK, show_default=True)
@click.option("--task_type", "--task-type", type=click.Choice(list(COMMANDS)), required=True)
@click.option(
    "--model_name",
    "--model-name",
    required=True,
    help="hub id, alias or local folder, as of `--model`",
)
@click.option(
    "--dataset_path", "--dataset-path", required=True, help="data folder in the layout of the task"
)
@click.option(
    "--output_path",
    "--output-path",
    default="runs",
    show_default=True,
    help="the run's folder is OUTPUT_PATH/JOB_ID",
)
@click.option(
    "--job_id",
    "--job-id",
    help="without one, or where OUTPUT_PATH ends with it, the run's folder is OUTPUT_PATH itself",
)
@click.option("--epochs", type=float)
@click.option(
    "--batch_size", "--batch-size", type=int, help="samples of one step over all processes"
)
@click.option("--learning_rate", "--learning-rate", type=float)
@click.argument("others", nargs=-1, type=click.UNPROCESSED)
def command(framework, task_type, output_path, job_id, others, **given):
    """Train a model of the table, or go on with the job's run. OTHERS: more options of the task's own `train`."""
    if job_id is not None and (Path(job_id).name != job_id or job_id in (".", "..")):
        raise click.BadParameter(
            f"{job_id!r}: expected the name of a folder", param_hint="--job_id"
        )
    output = Path(output_path)
    if job_id and output.name != job_id:
        output /= job_id
    words = ["train", "--output", str(output)]
    for name, flag in SETTINGS.items():
        if given[name] is not None:
            words += [f"--{flag}", str(given[name])]
    run_commands(import_module(f"visionloop.bin.{COMMANDS[task_type]}").commands, [*words, *others])


def main():
    run_commands(command)


if __name__ == "__main__":
    main()
