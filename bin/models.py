"""Which models there are, and which tasks and scores: for people who choose one, and for platforms that show them.

    bin/models.py list --task detection
    bin/models.py show dfine-xlarge-coco
    bin/models.py tasks --json
    bin/models.py metrics --json
    bin/models.py download google/vit-base-patch16-224      into the hub's cache, so that training
    needs no network bin/models.py verify                                    exit code 1 where a
    parameter count is not what the table says

NAME is what `--model` of a task's commands takes: an alias, a hub id, or an architecture without
released weights. What the table does not know is "not measured", null in json; shares are numbers
from 0 to 1.
"""

import click

from visionloop.bin.commands.cli import json_option, run_commands, traceback_option

task_option = click.option(
    "--task", metavar="TASK", help="a task type, or what its command is called: of this task alone"
)


@click.group(
    "models",
    help="Which models there are, and which tasks and scores; fetch weights, check the table.",
    context_settings={"max_content_width": 120},
)
def command():
    pass


@command.command("list", help="A line for each model, the chosen one of each task first.")
@task_option
@json_option("print one list of rows, all that `show --json` says of each")
@traceback_option
def list_models(task, as_json):
    from visionloop.bin.model_zoo.listing import run_list

    run_list(task, as_json=as_json)


@command.command("show", help="Everything about one model, with the source of each number.")
@click.argument("name")
@task_option
@json_option("print one object instead of lines")
@traceback_option
def show(name, task, as_json):
    from visionloop.bin.model_zoo.listing import run_show

    run_show(name, task, as_json=as_json)


@command.command(
    "tasks", help="The tasks: type, name in English and Korean, icon, primary score, data layout."
)
@json_option("print one list of tasks")
@traceback_option
def tasks(as_json):
    from visionloop.bin.model_zoo.listing import run_tasks

    run_tasks(as_json=as_json)


@command.command(
    "metrics",
    help="The scores of each task: which one platforms show (primary), which one picks best/ (best).",
)
@json_option("print one object {task type: {primary, best, metrics}}")
@traceback_option
def metrics(as_json):
    from visionloop.bin.model_zoo.listing import run_metrics

    run_metrics(as_json=as_json)


@command.command(
    "download",
    help="Fetch the weights of a model into the hub's cache (HF_HOME), for use without a network later.",
)
@click.argument("name")
@task_option
@traceback_option
def download(name, task):
    from visionloop.bin.model_zoo.download import run_download

    run_download(name, task)


@command.command(
    "verify",
    help="Build every model without memory for its weights, and count them. More than 1 % off: exit code 1.",
)
@task_option
@json_option("print one list of {model_id, task_type, params, counted, problem}")
@traceback_option
def verify(task, as_json):
    from visionloop.bin.model_zoo.verify import run_verify

    raise SystemExit(run_verify(task, as_json=as_json))


def main():
    run_commands(command)


if __name__ == "__main__":
    main()
