"""`replay`: the global batch of one step of a run, made again from its settings, with its images, loss terms and gradients."""

import contextlib
import json
import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch.nn.utils import get_total_norm

from visionloop.bin.commands.output import whole_folder
from visionloop.bin.commands.sheet import write_samples
from visionloop.datasets.io.layout import shorten
from visionloop.engine.checkpoints.files import finite, write_json
from visionloop.engine.checkpoints.folder import (
    problems,
    read_state,
    step_folder_name,
    step_folders,
)
from visionloop.engine.config.options import Setting, build, coerce, fields_of
from visionloop.engine.config.train_config import TrainConfig
from visionloop.engine.data.loader import MicroBatchCollate, MicroBatchSampler, SeededDataset
from visionloop.engine.data.prefetch import DataError
from visionloop.engine.data.sampler import EpochSampler, split_batch
from visionloop.engine.distributed import World, agree, pick_device
from visionloop.engine.errors import UserError
from visionloop.engine.grad_checkpointing import apply_grad_checkpointing
from visionloop.engine.logging.run_files import stored_settings
from visionloop.engine.optim import build_optimizer
from visionloop.engine.precision import build_precision
from visionloop.engine.prepare import freeze, set_process
from visionloop.engine.seeding import STEP, hashed, seed_host
from visionloop.engine.step import add_gradients
from visionloop.engine.train import build_data

REPORT = "replay.json"
SHOWN = 64  # samples that are listed on the console; replay.json has all


class Piece(NamedTuple):
    """One micro-batch, and what it was made of. keys: places in the run; skipped: names of samples that others took the place of."""

    keys: list
    samples: list
    batch: object
    skipped: tuple


def run_replay(task_class, *, run, step, output, device, as_json):
    """Show step `step`, the first is 1, of the run in folder `run`; writes replay.json and images to `output`, and nothing to the run.

    Raises UserError for a folder that is no run of this task, a step that it does not have, data
    that is not the run's any more, and samples that cannot be read.
    """
    run, output = Path(run), Path(output or f"replay_step_{step}")
    stored = stored_settings(run)
    settings = read_settings(run, stored, task_class, device)
    steps = stored["steps"]["value"]
    if not 1 <= step <= steps:
        raise UserError(f"--step {step}: expected 1 to {steps}, the steps of {run}", field="step")
    if output.resolve().is_relative_to(run.resolve()):
        raise UserError(
            f"--output {output}: lies in the run, which stays as it is; choose another",
            field="output",
            file=str(output),
        )
    world = World(0, 0, 1, pick_device(settings["device"].value))
    with whole_folder(output, REPORT) as folder:
        task, train, _, settings, facts = build_data(task_class, settings, world, stored)
        if facts["data_fingerprint"] != stored["data_fingerprint"]["value"]:
            why = f"the training samples are not those that {run} began with; what its steps saw is not known any more"
            raise UserError(
                f"--data {task.config.data}: {why}",
                code="changed_data",
                file=task.config.data,
                field="data",
            )
        config = build(TrainConfig, settings)
        set_process(config)
        pieces = make_micro_batches(task, train, config, step, processes_of(run))
        report = {
            "schema": 1,
            "task": task.name,
            "run": str(run),
            "step": step,
        } | describe_micro_batches(train, pieces)
        report |= measure(task, config, run, step, [piece.batch for piece in pieces], world)
        report |= {
            "logged": logged(run, step),
            "device": world.device.type,
            "precision": config.precision,
        }
        captions = [[f"id {row['id']}", Path(row["name"]).name] for row in report["samples"]]
        report["images"] = write_samples(
            task,
            [(sample, piece.batch) for piece in pieces for sample in piece.samples],
            captions,
            folder,
        )
        write_json(folder / REPORT, report)
    print(
        json.dumps(finite(report))
        if as_json
        else "\n".join([*lines_of(report), f"written: {output}"])
    )


def read_settings(run, stored, task_class, device):
    """{name: Setting} of the run for `build_data`: what it resolved for itself is left to be resolved again. Raises UserError."""
    if "task" not in stored:
        raise UserError(
            f"--run {run}: is no run (no settings.json of ours in it)", field="run", file=str(run)
        )
    if stored["task"]["value"] != task_class.name:
        name = stored["task"]["value"]
        raise UserError(
            f"--run {run}: is a run of {name}; python bin/{name}.py replays it",
            field="run",
            file=str(run),
        )
    settings = {}
    for name, (item, kind) in fields_of(task_class.config_class, TrainConfig).items():
        row = stored.get(name, {"value": item.default, "source": "default"})
        value = item.default if row["source"] == "auto" else row["value"]
        settings[name] = Setting(coerce(name, item, kind, value), row["source"])
    settings["workers"] = Setting(0, "flag")  # samples are the same in any process
    return settings | ({"device": Setting(device, "flag")} if device else {})


def processes_of(run):
    """How many processes the run was started on last: they decide where its batches are cut."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        return json.loads((run / "environment.json").read_text())["processes"]
    return 1


def make_micro_batches(task, train, config, step, processes):
    """[Piece] of a step, those of all processes in order. Raises UserError that names the samples that cannot be read."""
    order, alone = (
        EpochSampler(len(train), config.batch_size, config.seed),
        World(0, 0, 1, torch.device("cpu")),
    )
    before_sample = partial(task.before_sample, steps=config.steps)
    samples = SeededDataset(
        train, order, before_sample=before_sample, skip_unreadable=config.skip_unreadable
    )
    collate = MicroBatchCollate(task.collate, config.seed)
    cuts = split_batch(config.batch_size, processes, config.micro_batch)
    fetched = [
        [samples[key] for key in keys]
        for keys in MicroBatchSampler(order, cuts, alone, step - 1, step)
    ]
    unreadable = [
        f"{sample.name}: {sample.why}"
        for rows in fetched
        for _, sample, _ in rows
        if isinstance(sample, DataError)
    ]
    if unreadable:
        what = f"{len(unreadable)} of {config.batch_size} samples of step {step} cannot be read"
        raise UserError(f"{what}: {'; '.join(unreadable)}", code="unreadable_sample", field="data")
    return [
        Piece([key for key, _, _ in rows], [sample for _, sample, _ in rows], *collate(rows))
        for rows in fetched
    ]


def describe_micro_batches(train, pieces):
    """{"samples": [{"id", "name", "epoch", "micro_batch"}], "skipped": names}; all count from 0."""
    rows = []
    for number, piece in enumerate(pieces):
        for key, sample in zip(piece.keys, piece.samples, strict=True):
            index = int(sample["sample_id"])
            rows.append(
                {"id": index, "name": train.name(index), "epoch": key.epoch, "micro_batch": number}
            )
    return {
        "samples": rows,
        "skipped": sorted({name for piece in pieces for name in piece.skipped}),
    }


def measure(task, config, run, step, micro_batches, world):
    """{"weights", "losses": {term: float}, "gradient_norm", "gradient_norms": {parameter group: float}} of the step, before clipping."""
    torch.manual_seed(hashed(config.seed))  # the run's first weights
    module = task.build_model().to(world.device)
    freeze(task, module, config)
    if config.grad_checkpointing:
        apply_grad_checkpointing(task.grad_checkpointing_blocks(module))
    optimizer = build_optimizer(task.parameter_groups(module), module, config)
    precision = build_precision(config.precision, world.device, tf32=config.tf32)
    folder, weights = find_weights(task, config, run, step - 1)
    if folder:
        task.load(module, folder)
        precision.load_scaler_state(read_state(folder)["scaler"])
    seed_host(STEP, config.seed, step - 1)
    task.before_step(module, step - 1, config.steps)
    count = agree(world, task.count(micro_batches), task.count_names, stop=False).count
    losses = add_gradients(
        task,
        module,
        micro_batches,
        count,
        step - 1,
        seed=config.seed,
        precision=precision,
        device=world.device,
    )
    precision.scaler.unscale_(optimizer)
    return {
        "weights": weights,
        "losses": {name: float(value) for name, value in losses.items()},
        "gradient_norm": norm_of(module.parameters()),
        "gradient_norms": {
            group["name"]: norm_of(group["params"]) for group in optimizer.param_groups
        },
    }


def norm_of(parameters):
    """The norm that clipping would see of their gradients."""
    return float(
        get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    )


def find_weights(task, config, run, done):
    """(checkpoint folder or None, {"step", "folder", "exact"}): the newest whole weights of at most `done` steps.

    exact: whether the step that follows on `done` started from them. None: the weights that the run
    began with.
    """
    folders = step_folders(run / "checkpoints")
    if config.resume and (Path(config.resume) / "state.json").is_file():
        folders.append((read_state(Path(config.resume))["step"], Path(config.resume)))
    for step, folder in sorted(folders, reverse=True):
        if step > done:
            continue
        wrong = problems(folder)
        if wrong:
            print(f"{folder}: damaged, passed over ({wrong[0]})", file=sys.stderr)
            continue
        best = read_state(folder)["best"]
        if step == done == task.reload_best_at(config.steps) and best and best["step"] != step:
            # here the run went back to its best weights so far, whose folder may be gone by now
            reloaded = run / "checkpoints" / step_folder_name(best["step"])
            whole = not problems(reloaded)
            step, folder = (best["step"], reloaded) if whole else (step, folder)
            return folder, {"step": step, "folder": str(folder), "exact": whole}
        return folder, {"step": step, "folder": str(folder), "exact": step == done}
    return None, {"step": 0, "folder": None, "exact": done == 0}


def logged(run, step):
    """{"loss", "loss_<part>", "grad_norm"} that the run logged of the step, None where it did not. inf and nan are None."""
    with contextlib.suppress(OSError):
        for line in (run / "metrics.jsonl").read_text().splitlines():
            with contextlib.suppress(
                ValueError
            ):  # a run that is going on may be writing its last line
                row = json.loads(line)
                if row["kind"] == "train" and row["step"] == step:
                    return {
                        name: value
                        for name, value in row.items()
                        if name.startswith("loss") or name == "grad_norm"
                    }
    return None


def lines_of(report):
    """The report for people."""
    rows, weights, known = report["samples"], report["weights"], report["logged"] or {}
    epochs = " and ".join(str(epoch + 1) for epoch in sorted({row["epoch"] for row in rows}))
    parts = f"{1 + rows[-1]['micro_batch']} micro-batch(es), {report['precision']} on {report['device']}"
    yield f"step {report['step']} of {report['run']}: {len(rows)} samples of epoch {epochs} in {parts}"
    width = max(len(str(row["id"])) for row in rows)
    yield from (f"  id {row['id']:>{width}}  {row['name']}" for row in rows[:SHOWN])
    if len(rows) > SHOWN:
        yield f"  and {len(rows) - SHOWN} more, see {REPORT}"
    if report["skipped"]:
        yield f"unreadable, others took their places: {shorten(report['skipped'])}"
    source = weights["folder"] or "those the run began with"
    yield f"weights: {source}" + (
        ""
        if weights["exact"]
        else f"; the step itself started from later ones, of {report['step'] - 1} steps"
    )
    for name, value in report["losses"].items():
        yield f"{name} {value:.6g}" + told(value, name, known)
    yield f"gradient norm {report['gradient_norm']:.6g}" + told(
        report["gradient_norm"], "grad_norm", known
    )
    yield from (f"  {name} {value:.6g}" for name, value in report["gradient_norms"].items())


def told(value, name, known):
    """What the run logged of the same number, which on more processes is summed in another order."""
    theirs = known.get(name)
    if name not in known or finite(value) == theirs:
        return "  (logged: the same)" if name in known else ""
    return (
        "  (logged: not finite)"
        if theirs is None
        else f"  (logged: {theirs:.6g}, {theirs - value:+.1e})"
    )
