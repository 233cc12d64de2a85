"""One run of a comparison: its process, throughput and memory, scores, and its line on record.

All implementations are scored by the same command, visionloop's `evaluate`.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from itertools import pairwise
from pathlib import Path

from visionloop.bin.benchmarks.measurement import run_python
from visionloop.bin.benchmarks.peers import recipes
from visionloop.bin.benchmarks.peers.recipes import Case
from visionloop.bin.benchmarks.results import Row, describe_environment
from visionloop.engine.errors import UserError

PACKAGES = ("accelerate", "datasets", "timm")
# the first one is what implementations are compared by
SCORES = {
    "classification": ("accuracy", "val_loss"), "detection": ("mAP", "mAP50"),
    "segmentation": ("miou", "pixel_accuracy"), "instance_segmentation": ("mAP", "mAP50"),
    "panoptic_segmentation": ("pq", "pq_things"), "super_resolution": ("psnr", "ssim"),
}  # fmt: skip

# after short runs few queries are as certain as the authors' 0.8
EVALUATE_OPTIONS = {
    "super_resolution": ["--cache", "none"], "panoptic_segmentation": ["--score", "0.5"],
}  # fmt: skip


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a file of JSON lines, removing an incomplete last line."""
    complete, newline, rest = (path.read_text() if path.exists() else "").rpartition("\n")
    if rest:
        path.write_text(complete + newline)
    try:
        return [json.loads(line) for line in complete.splitlines()]
    except ValueError as error:
        raise UserError(f"--json {path}: a line is not JSON ({error})", file=str(path)) from None


def describe_case(case: Case, data: str) -> Row:
    """Return the description of a row, without figures; all but the load identify a run."""
    environment = describe_environment()
    environment["versions"] |= peer_versions()
    return {"benchmark": "peers", **asdict(case), "data": data, **environment}


def peer_versions() -> dict[str, str]:
    """Return {package: version} of the peers. Raises UserError where one is not installed."""
    try:
        return {name: metadata.version(name) for name in PACKAGES}
    except metadata.PackageNotFoundError as error:
        why = f"peers: {error.name} is not installed; pip install -e '.[compare]'"
        raise UserError(why) from None


def run_case(case: Case, data: str, folder: Path) -> Row:
    """Train, and where the case is scored, evaluate. Raises UserError, RuntimeError.

    folder: empty, for the files of the run.
    """
    if case.implementation == "visionloop":
        settings = recipes.visionloop_settings(case, data, str(folder / "run"))
        words = [f"visionloop.bin.{case.task}", "train", *recipes.command_line_of(settings)]
        run_module(words, case, folder)
        figures = visionloop_figures(case, folder / "run")
        model = folder / "run" / "best"
    else:
        request = folder / "request.json"
        request.write_text(json.dumps({"case": asdict(case), "data": data, "output": str(folder)}))
        run_module(["visionloop.bin.benchmarks.peers.trainer_process", str(request)], case, folder)
        figures = json.loads((folder / "figures.json").read_text())
        model = folder / "model"
    if case.comparison == recipes.SPEED:
        return figures
    words = [f"visionloop.bin.{case.task}", "evaluate", "--model", str(model), "--data", data]
    words += EVALUATE_OPTIONS.get(case.task, [])
    output = run_module([*words, "--device", case.device, "--json"], case, folder)
    scores = json.loads(output.splitlines()[-1])
    differs = recipes.DIFFERENCES[case.task] if case.comparison == recipes.SAME_RECIPE else "recipe"
    return figures | {name: scores[name] for name in SCORES[case.task]} | {"differs": differs}


def visionloop_figures(case: Case, output: Path) -> Row:
    """Return the figures of a finished run of visionloop, from its logs."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    events = EventAccumulator(str(output / "tensorboard"))
    events.Reload()
    # before the evaluation, whose images may be larger
    peak_mib = 2**10 * events.Scalars("memory/peak_gib")[-1].value
    return run_figures(case, seconds_of_steps(lines, case.steps), peak_mib)


def seconds_of_steps(lines: Sequence[Row], steps: int) -> float:
    """Return the seconds from the end of step WARM_STEPS to the end of the last one.

    lines: of metrics.jsonl. Where an evaluation lies between two lines (before the best weights are
    reloaded), what the steps themselves took.
    """
    evaluated = [line["step"] for line in lines if line["kind"] == "eval"]
    logged = [line for line in lines if line["kind"] == "train"]
    total = 0.0
    timed = (row for row in logged if recipes.WARM_STEPS <= row["step"] <= steps)
    for before, after in pairwise(timed):
        if any(before["step"] <= step < after["step"] for step in evaluated):
            total += (after["step"] - before["step"]) * after["step_ms"] / 1000
        else:
            total += after["time"] - before["time"]
    return total


def run_figures(case: Case, seconds: float, peak_mib: float) -> Row:
    """Return the figures of a run. seconds: of all steps but the first WARM_STEPS.

    peak_mib: of CUDA's allocator, else of the process's resident memory.
    """
    samples = (case.steps - recipes.WARM_STEPS) * case.batch_size
    return {"samples_per_second": round(samples / seconds, 2), "peak_mib": round(peak_mib, 1)}


def run_module(words: Sequence[str], case: Case, folder: Path) -> str:
    """Run a module as a process of its own and return what it prints, see run_python."""
    return run_python(
        ["-m", *words], folder, case.title, OMP_NUM_THREADS=str(case.threads),
        XDG_CACHE_HOME=str(folder / "cache"),  # nothing of a comparison is left in the user's
        # the Trainer would use all GPUs
        CUDA_VISIBLE_DEVICES=os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0],
    )  # fmt: skip
