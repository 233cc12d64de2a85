"""List models, tasks and scores; download and convert weights; verify the model zoo.

    bin/models.py list --task detection
    bin/models.py show dfine-xlarge-coco
    bin/models.py tasks --json
    bin/models.py metrics --json
    bin/models.py download google/vit-base-patch16-224    into the hub's cache, for offline use
    bin/models.py convert-weights FOLDER OUTPUT           pytorch_model.bin to safetensors
    bin/models.py verify                                  exit code 1 for a wrong count

NAME is a value of `--model`: an alias, a hub id, or an architecture without released weights.
Unknown values are "not measured", null in JSON; shares are numbers from 0 to 1.
"""

import click

from visionloop.bin.commands.cli import run_commands
from visionloop.bin.commands.options import json_option, traceback_option

task_option = click.option(
    "--task", metavar="TASK", help="restrict to a task, such as object_detection or detection"
)


@click.group(
    "models",
    help="List models, tasks and scores; download and convert weights; verify the model zoo.",
    context_settings={"max_content_width": 120},
)
def command() -> None:
    pass


@command.command("list", help="List all models, the recommended one of each task first.")
@task_option
@json_option("print one list of rows, all that `show --json` says of each")
@traceback_option
def list_models(task: str | None, as_json: bool) -> None:
    from visionloop.bin.model_zoo.listing import run_list

    run_list(task, as_json=as_json)


@command.command("show", help="Show everything about one model, with the source of each number.")
@click.argument("name")
@task_option
@json_option("print one object instead of lines")
@traceback_option
def show(name: str, task: str | None, as_json: bool) -> None:
    from visionloop.bin.model_zoo.listing import run_show

    run_show(name, task, as_json=as_json)


@command.command(
    "tasks",
    help="List the tasks: type, name in English and Korean, icon, primary score, data layout.",
)
@json_option("print one list of tasks")
@traceback_option
def tasks(as_json: bool) -> None:
    from visionloop.bin.model_zoo.listing import run_tasks

    run_tasks(as_json=as_json)


@command.command(
    "metrics",
    help="List the scores of each task: the one that platforms show (primary), the one that picks "
    "best/ (best).",
)
@json_option("print one object {task type: {primary, best, metrics}}")
@traceback_option
def metrics(as_json: bool) -> None:
    from visionloop.bin.model_zoo.listing import run_metrics

    run_metrics(as_json=as_json)


@command.command(
    "download",
    help="Download the weights of a model into the hub's cache (HF_HOME) for offline use.",
)
@click.argument("name")
@task_option
@traceback_option
def download(name: str, task: str | None) -> None:
    from visionloop.bin.model_zoo.download import run_download

    run_download(name, task)


@command.command(
    "convert-weights",
    help="Convert the pickled weights of FOLDER, pytorch_model.bin with config.json, into the new "
    "folder OUTPUT with safetensors, which --model reads. A file that holds more than tensors is "
    "refused.",
)
@click.argument("folder")
@click.argument("output")
@traceback_option
def convert_weights(folder: str, output: str) -> None:
    from visionloop.bin.model_zoo.convert_weights import run_convert_weights

    run_convert_weights(folder, output)


@command.command(
    "verify",
    help="Build every model on the meta device and count its parameters. Exits with 1 if a count "
    "is more than 1 % off.",
)
@task_option
@json_option("print one list of {model_id, task_type, params, counted, problem}")
@traceback_option
def verify(task: str | None, as_json: bool) -> None:
    from visionloop.bin.model_zoo.verify import run_verify

    raise SystemExit(run_verify(task, as_json=as_json))


def main() -> None:
    run_commands(command)


if __name__ == "__main__":
    main()
