"""The `startup` benchmark: from a command to its help and to its first training step.

Every start is a process of its own.
"""

import json
import statistics
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import click

from visionloop.bin.benchmarks.measurement import interleaved, run_python
from visionloop.bin.benchmarks.options import TASK, shared_options
from visionloop.bin.benchmarks.results import Row, describe_environment, write_results
from visionloop.bin.benchmarks.tasks import STEADY, sample_data

# the parts of a command: its help, and its first training step
PARTS = {
    "help_seconds": "`--help`, from the start of the process to its end",
    "imports_seconds": "from the start of the process: Python, imports, settings",
    "data_seconds": "index of the data and its fingerprint",
    "model_seconds": "model, optimizer, data workers, TensorBoard",
    "step_seconds": "first batch, forward, backward, optimizer, logged losses",
    "first_step_seconds": "all of these",
}


@click.command(
    help="Time the start of a process up to its help and the end of the first training"
    " step of `tiny` on sample data: medians."
)
@click.option(
    "--task", "tasks", type=TASK, multiple=True, default=list(STEADY), help="Task, can be repeated"
)
@shared_options("threads", "device", "json", repeats=3)
def startup(
    tasks: tuple[str, ...], threads: int, device: str | None, repeats: int, json_file: Path | None
) -> None:
    starts: dict[str, list[Row]] = {task_name: [] for task_name in tasks}
    with tempfile.TemporaryDirectory() as scratch:
        data = {name: sample_data(name, Path(scratch) / name) for name in tasks}
        for name in interleaved(tasks, repeats):
            output = Path(scratch) / f"{name}_{len(starts[name])}"
            starts[name].append(time_start(name, data[name], output, threads, device))
    rows: list[Row] = []
    for name, figures in starts.items():
        medians = {part: statistics.median(start[part] for start in figures) for part in PARTS}
        rows.append({"task": name, "model": "tiny"} | {k: round(v, 2) for k, v in medians.items()})
    context = describe_environment(threads=threads, device=device, repeats=repeats)
    context["writes_bytecode"] = not sys.flags.dont_write_bytecode
    write_results("startup", rows, json_file, ("task", "model"), PARTS, context)


def time_start(
    task_name: str, data: str, output: Path, threads: int, device: str | None
) -> dict[str, float]:
    """Return {part: seconds} of the real commands, see PARTS.

    output: a new folder for the run and its cache of decoded images.
    """
    launcher = str(Path(__file__).parents[1] / f"{task_name}.py")
    output.mkdir()
    began = time.time()
    run_python([launcher, "--help"], output)
    help_seconds = time.time() - began
    command = [launcher, "train", "--data", data, "--model", "tiny", "--steps", "1"]
    command += ["--output", str(output / "run"), "--threads", str(threads)]
    command += ["--device", device] if device else []
    began = time.time()
    run_python(command, output, XDG_CACHE_HOME=str(output / "cache"))
    return {"help_seconds": help_seconds} | first_step_parts(output / "run", began)


def first_step_parts(folder: Path, began: float) -> dict[str, float]:
    """Return {part: seconds} of a run up to the end of its first step, from its files.

    began: start of its process in seconds since 1970.
    """
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    first = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])
    assert (first["kind"], first["step"]) == ("train", 1), "another line comes first"
    # the end of a run begins another event file
    events = min((folder / "tensorboard").iterdir(), key=lambda path: path.name)
    # the lock is taken before the data is read, the settings are written after it; the first event
    # is the begin of its file
    files = [(folder / name).stat().st_mtime for name in (".lock", "settings.json")]
    first_event = next(iter(EventFileLoader(str(events)).Load())).wall_time
    moments = [began, *files, first_event, first["time"]]
    _, *parts, whole = PARTS
    spans = zip(parts, pairwise(moments), strict=True)
    return {name: stop - start for name, (start, stop) in spans} | {whole: moments[-1] - began}
