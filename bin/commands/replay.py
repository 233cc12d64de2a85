"""`replay`: one step of a run, repeated from its settings, checkpoint and data.

It shows the samples of the global batch, and computes loss terms and gradient norms bit for bit as
the run did.
"""

import contextlib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch.nn.utils import get_total_norm

from visionloop.bin.commands.output import output_folder
from visionloop.bin.commands.sheet import write_samples
from visionloop.datasets.io.layout import shorten
from visionloop.engine.augmentation import copy_in
from visionloop.engine.batch import Batch
from visionloop.engine.branches.record import read_record
from visionloop.engine.checkpoints.files import finite, write_json
from visionloop.engine.checkpoints.folder import read_state, step_folder_name, step_folders
from visionloop.engine.checkpoints.manifest import problems
from visionloop.engine.checkpoints.resume import load_module
from visionloop.engine.config.branch_point import DataOrigin, origin_of
from visionloop.engine.config.options import (
    Setting,
    Settings,
    SettingSource,
    coerce,
    fields_of,
    parse_source,
)
from visionloop.engine.config.train_config import TrainConfig
from visionloop.engine.data.loader import (
    LoadedSample,
    MicroBatchCollate,
    MicroBatchSampler,
    SampleKey,
    SeededDataset,
)
from visionloop.engine.data.micro_batches import Halving, MicroBatchPlan
from visionloop.engine.data.prefetch import DataError
from visionloop.engine.data.sampler import EpochSampler
from visionloop.engine.distributed import World, agree, pick_device
from visionloop.engine.errors import UserError
from visionloop.engine.logging.run_files import stored_settings
from visionloop.engine.optim import build_optimizer
from visionloop.engine.out_of_memory import read_halvings
from visionloop.engine.precision import build_precision
from visionloop.engine.prepare import build_module, set_process
from visionloop.engine.seeding import STEP, seed_host
from visionloop.engine.step import add_gradients
from visionloop.engine.task import Task
from visionloop.engine.train import build_data
from visionloop.engine.types import JsonObject, Sample, SampleDataset

REPORT = "replay.json"
MAX_LISTED_SAMPLES = 64  # on the console; replay.json has all


class ReplayedMicroBatch(NamedTuple):
    """A micro-batch with the samples it was collated from. skipped: names of unreadable samples."""

    keys: list[SampleKey]
    samples: list[Sample]
    batch: Batch
    skipped: tuple[str, ...]


def run_replay(
    task_class: type[Task],
    *,
    run: str | Path,
    step: int,
    output: str | Path | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Repeat a step of the run in folder `run`; write replay.json and images to `output`.

    step: the first one is 1. The run is not written to. Raises UserError for a folder that is no
    run of this task, a step that the run does not have, changed data and unreadable samples.
    """
    run, output = Path(run), Path(output or f"replay_step_{step}")
    stored = stored_settings(run)
    settings = read_settings(run, stored, task_class, device)
    steps = stored["steps"]["value"]
    if not 1 <= step <= steps:
        raise UserError(f"--step {step}: expected 1 to {steps}, the steps of {run}", field="step")
    branch = read_record(run) or {}
    if step <= branch.get("step", 0):
        why = f"is a step of {branch['run']}, which this run branches from: replay it there"
        raise UserError(f"--step {step}: {why}", field="step")
    origin = origin_of(branch)
    if output.resolve().is_relative_to(run.resolve()):
        why = "is a folder in the run, which is not changed; choose another"
        raise UserError(f"--output {output}: {why}", field="output", file=str(output))
    world = World(0, 0, 1, pick_device(settings["device"].value))
    with output_folder(output, REPORT) as folder:
        task, train_set, _, resolved = build_data(
            task_class, settings, world, stored, lambda *_: origin
        )
        fingerprint = resolved.immutable_settings["data_fingerprint"]
        if fingerprint != stored["data_fingerprint"]["value"]:
            raise changed_data(task, run)
        config = resolved.train_config
        set_process(config)
        micro_batches = make_micro_batches(
            task, train_set, config, step, num_processes_of(run), read_halvings(run), origin
        )
        report: JsonObject = {"schema": 1, "task": task.name, "run": str(run), "step": step}
        report |= describe_micro_batches(train_set, micro_batches)
        report |= measure(task, config, run, step, [item.batch for item in micro_batches], world)
        report |= {"logged": logged(run, step), "device": world.device.type}
        report["precision"] = config.precision
        report["images"] = write_samples(
            task,
            [(sample, item.batch) for item in micro_batches for sample in item.samples],
            [[f"id {row['id']}", Path(row["name"]).name] for row in report["samples"]],
            folder,
        )
        write_json(folder / REPORT, report)
    lines = [*lines_of(report), f"written: {output}"]
    print(json.dumps(finite(report)) if as_json else "\n".join(lines))


def changed_data(task: Task, run: Path) -> UserError:
    """Return the error of training samples that are not those of the run."""
    data = task.config.data
    why = f"the training samples are not those that {run} began with, so its steps are lost"
    return UserError(f"--data {data}: {why}", code="changed_data", file=data, field="data")


def read_settings(
    run: Path, stored: JsonObject, task_class: type[Task], device: str | None
) -> Settings:
    """Return the settings of the run for `build_data`; auto values are left to be resolved again.

    stored: its settings.json. Raises UserError for a folder that is no run of this task.
    """
    if "task" not in stored:
        why = "is not the folder of a run (it has no settings.json of visionloop)"
        raise UserError(f"--run {run}: {why}", field="run", file=str(run))
    if stored["task"]["value"] != task_class.name:
        name = stored["task"]["value"]
        why = f"is a run of {name}; python bin/{name}.py replays it"
        raise UserError(f"--run {run}: {why}", field="run", file=str(run))
    settings = {}
    for name, (item, kind) in fields_of(task_class.config_class, TrainConfig).items():
        row = stored.get(name, {"value": item.default, "source": SettingSource.DEFAULT})
        source, file = parse_source(row["source"])
        value = item.default if source == SettingSource.AUTO else row["value"]
        settings[name] = Setting(coerce(name, item, kind, value), source, file)
    copy = copy_in(run, settings["augment"].value)  # the file may have changed since
    settings["augment"] = Setting(copy, settings["augment"].source)
    settings["workers"] = Setting(0, SettingSource.FLAG)  # samples are the same in any process
    if device:
        settings["device"] = Setting(device, SettingSource.FLAG)
    return settings


def num_processes_of(run: Path) -> int:
    """Return the number of processes of the run's last start: they decide how batches are split."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        return int(json.loads((run / "environment.json").read_text())["processes"])
    return 1


def make_micro_batches(
    task: Task,
    train_set: SampleDataset,
    config: TrainConfig,
    step: int,
    num_processes: int,
    halvings: Sequence[Halving],
    origin: DataOrigin,
) -> list[ReplayedMicroBatch]:
    """Return the micro-batches of a step, of all processes in order.

    Raises UserError that names the samples that cannot be read.
    """
    sampler = EpochSampler(len(train_set), config.batch_size, config.seed, origin)
    samples = SeededDataset(
        train_set,
        sampler,
        before_sample=partial(task.before_sample, steps=config.steps),
        skip_unreadable=config.skip_unreadable,
    )
    collate = MicroBatchCollate(task.collate, config.seed)
    plan = MicroBatchPlan(config.batch_size, num_processes, config.micro_batch, tuple(halvings))
    single = World(0, 0, 1, torch.device("cpu"))
    loaded = [
        [samples[key] for key in keys]
        for keys in MicroBatchSampler(sampler, plan, single, step - 1, step)
    ]
    unreadable = [
        f"{row.sample.name}: {row.sample.why}"
        for rows in loaded
        for row in rows
        if isinstance(row.sample, DataError)
    ]
    if unreadable:
        what = f"{len(unreadable)} of {config.batch_size} samples of step {step} cannot be read"
        raise UserError(f"{what}: {'; '.join(unreadable)}", code="unreadable_sample", field="data")
    return [_collate(collate, rows) for rows in loaded]


def _collate(collate: MicroBatchCollate, rows: Sequence[LoadedSample]) -> ReplayedMicroBatch:
    batch, skipped = collate(rows)
    assert isinstance(batch, Batch)
    samples = [row.sample for row in rows if not isinstance(row.sample, DataError)]
    return ReplayedMicroBatch([row.key for row in rows], samples, batch, skipped)


def describe_micro_batches(
    train_set: SampleDataset, micro_batches: Sequence[ReplayedMicroBatch]
) -> JsonObject:
    """Return {"samples": [{"id", "name", "epoch", "micro_batch"}], "skipped": names}.

    Ids, epochs and micro-batches count from 0.
    """
    rows = []
    for number, item in enumerate(micro_batches):
        for key, sample in zip(item.keys, item.samples, strict=True):
            index = int(sample["sample_id"])
            row = {"id": index, "name": train_set.name(index), "epoch": key.epoch}
            rows.append(row | {"micro_batch": number})
    skipped = {name for item in micro_batches for name in item.skipped}
    return {"samples": rows, "skipped": sorted(skipped)}


def measure(
    task: Task,
    config: TrainConfig,
    run: Path,
    step: int,
    micro_batches: Sequence[Batch],
    world: World,
) -> JsonObject:
    """Compute losses and gradients of the step, before clipping.

    Returns {"weights": of `find_weights`, "losses": {term: value}, "gradient_norm": float,
    "gradient_norms": {parameter group: float}}.
    """
    # whole on this process, also of a sharded run; with the first weights of the run
    module = build_module(task, replace(config, shard="none"), world)
    optimizer = build_optimizer(task.parameter_groups(module), module, config)
    precision = build_precision(config.precision, world.device, tf32=config.tf32)
    folder, weights = find_weights(task, config, run, step - 1)
    if folder:
        load_checkpoint(task, module, folder, weights["step"], config.steps)
        precision.load_scaler_state(read_state(folder)["scaler"])
    seed_host(STEP, config.seed, step - 1)
    task.before_step(module, step - 1, config.steps)
    counts = task.count_normalizers(micro_batches)
    losses = add_gradients(
        task,
        module,
        micro_batches,
        agree(world, counts, task.normalizer_names, stop=False).normalizers,
        step - 1,
        seed=config.seed,
        precision=precision,
        device=world.device,
    )
    precision.scaler.unscale_(optimizer)
    groups = {group["name"]: norm_of(group["params"]) for group in optimizer.param_groups}
    return {
        "weights": weights,
        "losses": {name: float(value) for name, value in losses.items()},
        "gradient_norm": norm_of(module.parameters()),
        "gradient_norms": groups,
    }


def load_checkpoint(
    task: Task, module: torch.nn.Module, folder: Path, done: int, steps: int
) -> None:
    """Load the weights of a checkpoint of `done` steps, whole or sharded.

    Raises UserError for one that cannot be loaded.
    """
    try:
        load_module(task, module, folder, done, steps)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: {error}", code="bad_checkpoint", file=str(folder)) from None


def norm_of(parameters: Iterable[torch.nn.Parameter]) -> float:
    """Return the norm of the gradients that clipping would compute."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return float(get_total_norm(gradients))


def find_weights(
    task: Task, config: TrainConfig, run: Path, done: int
) -> tuple[Path | None, JsonObject]:
    """Find the newest valid weights of at most `done` steps.

    Returns (checkpoint folder, {"step", "folder", "exact"}); the folder is None for the weights
    that the run began with. exact: the step after `done` steps started from these weights.
    """
    folders = step_folders(run / "checkpoints")
    if config.resume and (Path(config.resume) / "state.json").is_file():
        folders.append((read_state(Path(config.resume))["step"], Path(config.resume)))
    for step, folder in sorted(folders, reverse=True):
        if step > done:
            continue
        damage = problems(folder)
        if damage:
            print(f"{folder}: damaged, an earlier one is used ({damage[0]})", file=sys.stderr)
            continue
        best = read_state(folder)["best"]
        exact = step == done
        if exact and done == task.reload_best_at(config.steps) and best and best["step"] != step:
            # here the run went back to its best weights so far, whose folder may be gone by now
            reloaded = run / "checkpoints" / step_folder_name(best["step"])
            exact = not problems(reloaded)
            step, folder = (best["step"], reloaded) if exact else (step, folder)
        return folder, {"step": step, "folder": str(folder), "exact": exact}
    return None, {"step": 0, "folder": None, "exact": done == 0}


def logged(run: Path, step: int) -> JsonObject | None:
    """Return {"loss", "loss_<term>", "grad_norm"} that the run logged of the step, if it did.

    inf and nan are None.
    """
    with contextlib.suppress(OSError):
        for line in (run / "metrics.jsonl").read_text().splitlines():
            # a run that has not ended may be writing its last line
            with contextlib.suppress(ValueError):
                row = json.loads(line)
                if row["kind"] == "train" and row["step"] == step:
                    return {
                        name: value
                        for name, value in row.items()
                        if name.startswith("loss") or name == "grad_norm"
                    }
    return None


def lines_of(report: JsonObject) -> Iterator[str]:
    """Yield the lines of the report for people."""
    rows, weights, logged_row = report["samples"], report["weights"], report["logged"] or {}
    epochs = " and ".join(str(epoch + 1) for epoch in sorted({row["epoch"] for row in rows}))
    head = f"step {report['step']} of {report['run']}: {len(rows)} samples of epoch {epochs}"
    count = f"{1 + rows[-1]['micro_batch']} micro-batch(es)"
    yield f"{head} in {count}, {report['precision']} on {report['device']}"
    width = max(len(str(row["id"])) for row in rows)
    yield from (f"  id {row['id']:>{width}}  {row['name']}" for row in rows[:MAX_LISTED_SAMPLES])
    if len(rows) > MAX_LISTED_SAMPLES:
        yield f"  and {len(rows) - MAX_LISTED_SAMPLES} more, see {REPORT}"
    if report["skipped"]:
        yield f"unreadable samples, replaced by the next: {shorten(report['skipped'])}"
    source = weights["folder"] or "those the run began with"
    later = f"; the run had later ones at this step, of {report['step'] - 1} steps"
    yield f"weights: {source}" + ("" if weights["exact"] else later)
    for name, value in report["losses"].items():
        yield f"{name} {value:.6g}" + compare_with_log(value, name, logged_row)
    norm = report["gradient_norm"]
    yield f"gradient norm {norm:.6g}" + compare_with_log(norm, "grad_norm", logged_row)
    yield from (f"  {name} {value:.6g}" for name, value in report["gradient_norms"].items())


def compare_with_log(value: float, name: str, logged_row: JsonObject) -> str:
    """Return the number that the run logged, which more processes sum in another order."""
    if name not in logged_row:
        return ""
    logged_value = logged_row[name]
    if finite(value) == logged_value:
        return "  (logged: the same)"
    if logged_value is None:
        return "  (logged: not finite)"
    return f"  (logged: {logged_value:.6g}, {logged_value - value:+.1e})"
