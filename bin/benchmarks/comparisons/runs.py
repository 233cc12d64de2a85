"""One run of a comparison: its process, its rate and memory, and its scores, which one and the same command gives to all sides."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

from visionloop.bin.benchmarks.comparisons.cases import WARM
from visionloop.bin.benchmarks.comparisons.recipes import DIFFERENT, arguments_of, settings_of
from visionloop.engine.errors import USER_ERROR, UserError

# the first one is what sides are compared by
SCORES = {
    "classification": ("accuracy", "val_loss"),
    "detection": ("mAP", "mAP50"),
    "segmentation": ("miou", "pixel_accuracy"),
    "super_resolution": ("psnr", "ssim"),
}


class FailedRun(RuntimeError):
    """A process ended with an error that is not the user's, or was ended because it took too long."""


def run_case(case, data, folder, longest=None):
    """{figure: value} of a Case. folder: empty, for what it writes; longest: seconds. Raises UserError, FailedRun."""
    if case.side == "visionloop":
        settings = settings_of(case, data, folder / "run")
        run_process(
            [f"visionloop.bin.{case.task}", "train", *arguments_of(settings)], case, folder, longest
        )
        figures = figures_of_run(case, folder / "run")
        model = folder / "run" / "best"
    else:
        request = folder / "request.json"
        request.write_text(json.dumps({"case": asdict(case), "data": data, "output": str(folder)}))
        run_process(
            ["visionloop.bin.benchmarks.comparisons.peers", str(request)], case, folder, longest
        )
        figures = json.loads((folder / "figures.json").read_text())
        model = folder / "model"
    if case.scored:
        figures |= score(case, data, model, folder)
        figures["differs"] = DIFFERENT[case.task] if case.comparison == "same" else "recipe"
    return figures


def figures_of_run(case, output):
    """{"samples_per_second", peak memory} of a finished run of ours: what it logged at the end of the steps."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    board = EventAccumulator(str(output / "tensorboard"))
    board.Reload()
    peak_mib = (
        2**10 * board.Scalars("memory/peak_gib")[-1].value
    )  # before the evaluation, whose images may be larger
    return {
        "samples_per_second": rate(case, seconds_of_steps(lines, case.steps)),
        peak_name(case.device): round(peak_mib, 1),
    }


def seconds_of_steps(lines, steps):
    """Seconds from the end of step WARM to the end of the last one. lines: of metrics.jsonl.

    Where an evaluation came between two lines (before the best weights are reloaded), what the
    steps themselves took.
    """
    logged = [line for line in lines if line["kind"] == "train" and WARM <= line["step"] <= steps]
    evaluated = [line["step"] for line in lines if line["kind"] == "eval"]
    total = 0.0
    for before, after in pairwise(logged):
        if any(before["step"] <= step < after["step"] for step in evaluated):
            total += (after["step"] - before["step"]) * after["step_ms"] / 1000
        else:
            total += after["time"] - before["time"]
    return total


def rate(case, seconds):
    """Samples a second of all steps but the first WARM."""
    return round((case.steps - WARM) * case.batch_size / seconds, 2)


def peak_name(device):
    """What the figure of the most memory is called: CUDA's is the allocator's, else it is the process's."""
    return "peak_allocated_mib" if device == "cuda" else "peak_resident_mib"


def score(case, data, model, folder):
    """{metric: value} of a model folder on the validation split, by our `evaluate`."""
    words = [
        f"visionloop.bin.{case.task}",
        "evaluate",
        "--model",
        str(model),
        "--data",
        data,
        "--device",
        case.device,
        "--json",
    ]
    if case.task == "super_resolution":
        words += ["--cache", "none"]
    scores = json.loads(run_process(words, case, folder).splitlines()[-1])
    return {name: scores[name] for name in SCORES[case.task]}


def run_process(words, case, folder, longest=None):
    """What a module run as a process of its own prints. Raises UserError for its exit code 2, FailedRun for any other but 0."""
    environment = os.environ | {
        "OMP_NUM_THREADS": str(case.threads),
        "HF_HUB_OFFLINE": "1",
        "XDG_CACHE_HOME": str(
            Path(folder).parent / "cache"
        ),  # nothing of a comparison is left in the user's
        "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[
            0
        ],  # the Trainer would take them all
    }
    # -P: a folder that is called datasets, as ours is, must not stand before the package
    command = [sys.executable, "-P", "-m", *words]
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=longest
        )
    except subprocess.TimeoutExpired:
        raise FailedRun(f"took longer than {longest:g} seconds") from None
    if done.returncode == USER_ERROR:
        raise UserError(f"{case.title}: {done.stderr.strip().splitlines()[-1]}")
    if done.returncode:
        raise FailedRun(f"{case.title}: exit code {done.returncode}\n{done.stderr[-4000:]}")
    return done.stdout
