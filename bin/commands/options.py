"""Options that several commands share."""

import click

model_option = click.option("--model", required=True, help="a run's best/, a checkpoint folder, or any Hugging Face folder")
device_option = click.option("--device", type=click.Choice(["cuda", "mps", "cpu"]), help="default: the best there is")
threads_option = click.option("--threads", type=click.IntRange(1), help="threads of this process  [default: all cores]")
# read from the arguments themselves: an error may come before they are parsed
traceback_option = click.option("--traceback", is_flag=True, expose_value=False, help="show where an error comes from")


def json_option(help):
    return click.option("--json", "as_json", is_flag=True, help=help)
