"""How long a command takes until it works: its help, its imports, its first training step. Every start is a process of its own."""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from itertools import pairwise, product
from pathlib import Path

import click
from tqdm import tqdm

from visionloop.bin.benchmarks.environment import append_line, describe_environment
from visionloop.bin.benchmarks.options import json_option, repeats_option, threads_option
from visionloop.bin.benchmarks.tables import print_figures, print_table
from visionloop.bin.benchmarks.tasks import STEADY, sample_data
from visionloop.bin.commands.cli import device_option
from visionloop.engine.errors import USER_ERROR, UserError

# of the parts of a training command up to the end of its first step
PARTS = {
    "imports_seconds": "from the start of the process: Python, imports, settings",
    "data_seconds": "index of the data, its fingerprint",
    "model_seconds": "network, optimizer, loader, TensorBoard",
    "step_seconds": "first batch, forward and backward, optimizer, losses read",
    "first_step_seconds": "all of it",
}
# what a launcher does before it trains, told by the clock; {names}: modules
IMPORTS = """
import importlib, time
from visionloop.bin.commands.cli import heavy_imports
with heavy_imports():
    for name in {names}:
        importlib.import_module(name)
        print(name, time.time())
"""
IMPORT_LINE = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)$")
HEAVIEST = 10


@click.command(
    help="From the start of a process to its help, its imports and the end of the first step of `tiny` on sample data: medians."
)
@click.option(
    "--task",
    "task_names",
    type=click.Choice(list(STEADY)),
    multiple=True,
    default=list(STEADY),
    show_default=True,
)
@threads_option
@repeats_option(3, "starts of each kind")
@device_option
@json_option
def startup(task_names, json_file, repeats, **options):
    seconds, imports = (
        {task_name: defaultdict(list) for task_name in task_names} for _ in range(2)
    )
    with (
        tempfile.TemporaryDirectory() as scratch,
        tqdm(total=repeats * len(task_names), unit="turn", disable=None, leave=False) as bar,
    ):
        data = {
            task_name: new_data(task_name, Path(scratch) / task_name) for task_name in task_names
        }
        for turn, task_name in product(range(repeats), task_names):
            figures = {"help_seconds": time_help(task_name)} | time_imports(task_name)
            figures |= time_first_step(
                task_name, data[task_name], Path(scratch) / f"{task_name}_{turn}", **options
            )
            for found, values in ((seconds, figures), (imports, own_times(task_name))):
                for name, value in values.items():
                    found[task_name][name].append(value)
            bar.update()
    environment = describe_environment({**options, "repeats": repeats})
    rows = {task_name: medians(seconds[task_name], digits=2) for task_name in task_names}
    for choose in (lambda name: name not in PARTS, lambda name: name in PARTS):
        print_table(
            [
                {"task": task} | {name: value for name, value in row.items() if choose(name)}
                for task, row in rows.items()
            ]
        )
    for task_name, figures in rows.items():
        own = medians(imports[task_name], digits=1)
        heaviest = dict(sorted(own.items(), key=lambda item: -item[1])[:HEAVIEST])
        click.echo(
            f"{task_name}: own ms of the heaviest imports: "
            + ", ".join(f"{name} {value:.0f}" for name, value in heaviest.items())
        )
        figures |= {
            "model": "tiny",
            "heaviest_imports_ms": heaviest,
            "writes_bytecode": not sys.flags.dont_write_bytecode,
        }
        append_line(json_file, benchmark="startup", task=task_name, **figures, **environment)
    print_figures(PARTS | environment)


def new_data(task_name, folder):
    folder.mkdir()
    return sample_data(task_name, folder)


def launcher(task_name):
    """The launcher's file, as `python bin/<task>.py` names it."""
    return str(Path(__file__).parents[1] / f"{task_name}.py")


def time_help(task_name):
    """Wall seconds of `--help`, from the start of the process to its end."""
    began = time.time()
    run([launcher(task_name), "--help"])
    return time.time() - began


def heavy_modules(task_name):
    return ["torch", "torchvision", "transformers", f"visionloop.tasks.{task_name}.task"]


def time_imports(task_name):
    """{module_seconds: from the start of a fresh interpreter until it and those before it are imported}."""
    began = time.time()
    done = run(["-P", "-c", IMPORTS.format(names=heavy_modules(task_name))])
    ends = (line.split() for line in done.stdout.splitlines())
    return {
        f"{'task' if name.startswith('visionloop') else name}_seconds": float(end) - began
        for name, end in ends
    }


def own_times(task_name):
    """{package: ms that its modules took to import, without what they import in turn}, of a fresh interpreter."""
    return parse_own_times(
        run(["-P", "-X", "importtime", "-c", IMPORTS.format(names=heavy_modules(task_name))]).stderr
    )


def parse_own_times(text):
    """{package: ms} of what `-X importtime` writes."""
    own = Counter()
    for match in map(IMPORT_LINE.match, text.splitlines()):
        if match:
            own[match[2].split(".")[0]] += int(match[1]) / 1000
    return dict(own)


def time_first_step(task_name, data, folder, *, threads, device):
    """{part: seconds} of the real command, see PARTS. folder: a new one for what it writes, its cache of images too."""
    folder.mkdir()
    began = time.time()
    command = [
        launcher(task_name),
        "train",
        "--data",
        data,
        "--model",
        "tiny",
        "--output",
        str(folder / "run"),
        "--steps",
        "1",
    ]
    command += ["--threads", str(threads), *(["--device", device] if device else [])]
    run(command, XDG_CACHE_HOME=str(folder / "cache"))
    return parts_of(folder / "run", began)


def parts_of(folder, began):
    """{part: seconds} that a run took up to the end of its first step, from what it wrote one after the other.

    began: when its process started, seconds since 1970.
    """
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    first = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])
    assert (first["kind"], first["step"]) == ("train", 1), "another line comes first"
    events = min(
        (folder / "tensorboard").iterdir(), key=lambda path: path.name
    )  # the end of a run begins another file
    # the lock is taken before the data is looked at, the settings are written after it; the first
    # event is that a file was begun
    files = [(folder / name).stat().st_mtime for name in (".lock", "settings.json")]
    moments = [
        began,
        *files,
        next(iter(EventFileLoader(str(events)).Load())).wall_time,
        first["time"],
    ]
    *parts, whole = PARTS
    return {
        name: stop - start for name, (start, stop) in zip(parts, pairwise(moments), strict=True)
    } | {whole: moments[-1] - began}


def run(arguments, **environment):
    """A finished process of this interpreter. UserError with its own line where that is what it ended with."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"HF_HUB_OFFLINE": "1"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == USER_ERROR:
        raise UserError(done.stderr.strip().splitlines()[-1].removeprefix("error: "))
    if done.returncode:
        click.echo(done.stderr, err=True)
    done.check_returncode()
    return done


def medians(values, digits):
    return {name: round(statistics.median(found), digits) for name, found in values.items()}
