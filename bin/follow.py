"""Forward the settings, scores and state of a run to MLflow, Weights & Biases or a file.

    bin/follow.py runs/flowers --mlflow http://localhost:5000
    bin/follow.py runs/flowers --mlflow sqlite:///mlflow.db --once
    bin/follow.py runs/flowers --wandb --experiment flowers
    bin/follow.py runs/flowers --jsonl flowers.jsonl

It follows a live run until its end and may be started, stopped and killed at any moment: started
again, it forwards each point once. See bin/platform_contract/README.md.
"""

from pathlib import Path

import click

from visionloop.bin.commands.cli import run_commands
from visionloop.bin.commands.options import PATH, traceback_option
from visionloop.bin.followers.forward import follow
from visionloop.bin.followers.jsonl_file import JsonlFile
from visionloop.bin.followers.mlflow_run import MlflowRun
from visionloop.bin.followers.receiver import Cursor, Receiver
from visionloop.bin.followers.source import RunSource
from visionloop.bin.followers.wandb_run import WandbRun
from visionloop.engine.errors import UserError

EXTRAS = {"mlflow": "mlflow", "sqlalchemy": "mlflow", "alembic": "mlflow", "wandb": "wandb"}


@click.command(
    "follow",
    help="Forward the settings, scores and state of a run to one of MLflow, Weights & Biases or a "
    "file, until the run has ended.",
    context_settings={"max_content_width": 120},
)
@click.argument("run", type=PATH)
@click.option("--mlflow", metavar="URI", help="Tracking server or database of MLflow")
@click.option("--wandb", is_flag=True, help="Weights & Biases; WANDB_API_KEY and others as usual")
@click.option("--jsonl", type=PATH, metavar="FILE", help="File to append JSON lines to")
@click.option(
    "--experiment",
    default="visionloop",
    show_default=True,
    help="Experiment of MLflow or project of Weights & Biases",
)
@click.option("--name", help="Name of the run there (default: that of the folder)")
@click.option("--once", is_flag=True, help="Forward what is there and end, also of a live run")
@click.option("--artifacts", is_flag=True, help="Upload best/ when the run has finished")
@click.option(
    "--interval",
    type=click.FloatRange(0.05, 3600),
    default=5,
    show_default=True,
    help="Seconds between two looks at the run",
)
@click.option(
    "--state", type=PATH, help="Folder of the follower's notes (default: followers/ in the run)"
)
@traceback_option
def command(
    run: str,
    mlflow: str | None,
    wandb: bool,
    jsonl: str | None,
    experiment: str,
    name: str | None,
    once: bool,
    artifacts: bool,
    interval: float,
    state: str | None,
) -> None:
    """Run the command."""
    if [mlflow is not None, wandb, jsonl is not None].count(True) != 1:
        raise UserError("expected one of --mlflow URI, --wandb and --jsonl FILE", field="mlflow")
    if artifacts and jsonl is not None:
        raise UserError("--artifacts: --jsonl takes no files", field="artifacts")
    source = RunSource(run)
    notes = Path(state).resolve() if state else source.folder / "followers"
    receiver: Receiver
    try:
        if mlflow is not None:
            cursor = Cursor(notes, "mlflow", f"{mlflow}\n{experiment}")
            receiver = MlflowRun(mlflow, experiment, name or source.name, source, cursor)
        elif jsonl is not None:
            path = Path(jsonl).resolve()
            receiver = JsonlFile(path, Cursor(notes, "jsonl", str(path)))
        else:
            receiver = WandbRun(
                experiment, name or source.name, source, Cursor(notes, "wandb", experiment)
            )
        follow(source, receiver, interval=interval, once=once, artifacts=artifacts)
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        raise UserError(
            f"--{extra} needs {error.name}: pip install 'visionloop[{extra}]'", field=extra
        ) from None


def main() -> None:
    """Run the command line."""
    run_commands(command)


if __name__ == "__main__":
    main()
