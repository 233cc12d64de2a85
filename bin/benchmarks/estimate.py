"""What `check` says beforehand that a run will take, beside what it takes: time, memory and disk of the demonstration's runs."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
from tqdm import tqdm

from visionloop.bin.benchmarks.environment import append_line, describe_environment
from visionloop.bin.benchmarks.options import json_option, threads_option
from visionloop.bin.benchmarks.startup import launcher, run
from visionloop.bin.benchmarks.tables import print_figures, print_table
from visionloop.bin.benchmarks.tasks import STEADY, sample_data
from visionloop.bin.commands.cli import device_option

# steps of a run as bin/demo makes it
STEPS = {"classification": 500, "detection": 400, "segmentation": 400, "super_resolution": 450}
LOOK_SECONDS = 0.1  # between two looks at a running command
# in a small process of its own: what the system calls a command's peak begins with the peak of the
# process that started it
PEAK_OF = """
import os, subprocess, sys
with subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL) as process:
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
print(usage.ru_maxrss)
sys.exit(process.returncode)
"""
COLUMNS = {
    "seconds": "from the start of the process to its end",
    "memory_gib": "the most of the training process, without workers, that was in RAM; with CUDA, on the device",
    "disk_gib": "the most that the run's folder took at a time",
}


@click.command(
    help="What `check` expects of a run of `tiny` on sample data beside what the run takes: time, memory, disk."
)
@click.option(
    "--task",
    "task_names",
    type=click.Choice(list(STEADY)),
    multiple=True,
    default=list(STEADY),
    show_default=True,
)
@click.option("--data", help="data folder of the one task (default: the task's sample data)")
@click.option("--steps", type=click.IntRange(2), help="of the run (default: as in bin/demo)")
@click.option("--workers", type=click.IntRange(0), default=0, show_default=True)
@threads_option
@device_option
@json_option
def estimate(task_names, json_file, **options):
    environment, rows = describe_environment(options), []
    for task_name in tqdm(task_names, unit="task", disable=None, leave=False):
        rows += compare_task(task_name, **options)
    print_table(rows)
    print_figures(COLUMNS | environment)
    for row in rows:
        append_line(json_file, benchmark="estimate", **row, **environment)


def compare_task(task_name, *, data, steps, workers, threads, device):
    """[{"task", "figure", "expected", "measured", "ratio"}] of one task."""
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "new").mkdir()
        folder = data or sample_data(task_name, Path(scratch) / "new")
        words = ["--data", folder, "--model", "tiny", "--steps", str(steps or STEPS[task_name])]
        words += [
            "--threads",
            str(threads),
            "--workers",
            str(workers),
            *(["--device", device] if device else []),
        ]
        cache = {"XDG_CACHE_HOME": str(Path(scratch) / "cache")}
        expected = json.loads(
            run([launcher(task_name), "check", *words, "--json"], **cache).stdout
        )["estimate"]
        output = Path(scratch) / "run"
        measured = watch(
            [launcher(task_name), "train", *words, "--output", str(output)], output, **cache
        )
        if device == "cuda":
            measured["memory_gib"] = last_peak(output)
    return [
        {"task": task_name, "figure": name, "expected": expected[name], "measured": measured[name],
         "ratio": round(expected[name] / measured[name], 2)}
        for name in COLUMNS
    ]  # fmt: skip


def watch(arguments, output, **environment):
    """{"seconds", "memory_gib", "disk_gib"} of a command of this interpreter that writes into `output`. Raises CalledProcessError."""
    most, began, measured = (
        0,
        time.monotonic(),
        [sys.executable, "-IS", "-c", PEAK_OF, sys.executable, *arguments],
    )
    with subprocess.Popen(
        measured, stdout=subprocess.PIPE, text=True, env=os.environ | environment
    ) as process:
        while process.poll() is None:
            most = max(most, folder_bytes(output))
            time.sleep(LOOK_SECONDS)
        peak = process.stdout.read()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, arguments)
    unit = 1 if sys.platform == "darwin" else 2**10  # of ru_maxrss, in bytes
    found = {
        "seconds": time.monotonic() - began,
        "memory_gib": int(peak) * unit / 2**30,
        "disk_gib": most / 2**30,
    }
    return {name: round(value, 4) for name, value in found.items()}


def folder_bytes(folder):
    """What the files of a folder take, of those that do not vanish meanwhile."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(where, name)).st_size
            except OSError:
                continue
    return total


def last_peak(output):
    """GiB of the device's memory that the run says it had at most."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(output / "tensorboard"))
    board.Reload()
    return round(board.Scalars("memory/peak_gib")[-1].value, 4)
