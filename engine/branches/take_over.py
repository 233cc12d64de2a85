"""The beginning of a branch: what fits of a checkpoint is loaded, and saved as its first one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import torch

from visionloop.engine.branches.record import METRICS, write_record
from visionloop.engine.branches.source import SCORE_SETTINGS, Branch
from visionloop.engine.checkpoints.files import replace_file
from visionloop.engine.checkpoints.folder import read_state, step_folders
from visionloop.engine.checkpoints.manifest import MANIFEST
from visionloop.engine.checkpoints.resume import load_model
from visionloop.engine.checkpoints.save import save_checkpoint
from visionloop.engine.checkpoints.start import wait_until_visible
from visionloop.engine.checkpoints.stored_tensors import StoredTensors
from visionloop.engine.config.branch_point import origin_of
from visionloop.engine.config.options import flag_of
from visionloop.engine.config.train_config import TrainConfig
from visionloop.engine.ema import ema_decay_for
from visionloop.engine.errors import UserError
from visionloop.engine.evaluation.record import FOLDER
from visionloop.engine.logging.run_log import retained_lines
from visionloop.engine.lr_schedule import lr_of
from visionloop.engine.optim import state_by_name
from visionloop.engine.out_of_memory import read_halvings, write_halvings
from visionloop.engine.run import Run, RunSpec, TrainState
from visionloop.engine.system.memory import is_out_of_memory
from visionloop.engine.task import Task
from visionloop.engine.tensors import load_by_name
from visionloop.engine.types import JsonObject

SCHEDULE_SETTINGS = (
    "steps",
    "lr",
    "schedule",
    "schedule_power",
    "schedule_milestones",
    "lr_min",
    "warmup_steps",
)


def write_beginning(spec: RunSpec) -> None:
    """Copy the history of the source into the folder of a branch; write branch.json.

    Main rank only, before the log is opened.
    """
    branch = spec.branch
    assert branch is not None, "this start begins a branch"
    state = read_state(branch.checkpoint)
    step, origin = state["step"], state_at_branch(spec).data_origin
    history = copy_history(branch.run, spec.output, step, state["evaluated_at"])
    if halvings := read_halvings(branch.run) if "batch_size" not in branch.changes else ():
        write_halvings(spec.output, [halving for halving in halvings if halving.step < step])
    write_record(
        spec.output,
        {
            "branch": branch.text,
            "extend": spec.config.extend,
            "run": str(branch.run.resolve()),
            "step": step,
            "manifest_sha256": sha256((branch.checkpoint / MANIFEST).read_bytes()).hexdigest(),
            "changes": branch.changes,
            "data_origin": list(origin),
            "history": history,
        },
    )


def copy_history(source: Path, output: Path, step: int, evaluated_at: int) -> JsonObject:
    """Copy what a run has logged until a checkpoint; return the `history` of branch.json.

    Args:
        source: the run.
        output: the folder of its branch.
        step: steps done at the checkpoint.
        evaluated_at: steps done at the last evaluation before.
    """
    lines = b""
    with suppress(FileNotFoundError):
        lines = retained_lines((source / METRICS).read_text(), step, evaluated_at).encode()
    replace_file(output / METRICS, lines)
    shutil.rmtree(output / FOLDER, ignore_errors=True)
    for evaluated, folder in step_folders(source / FOLDER):
        if evaluated <= evaluated_at:
            shutil.copytree(folder, output / FOLDER / folder.name)
    return {"bytes": len(lines), "sha256": sha256(lines).hexdigest()}


def state_at_branch(spec: RunSpec, checkpoint: Path | None = None) -> TrainState:
    """Return the progress that a branch begins with.

    checkpoint: another one of the source than that of the branch.
    """
    branch, config = spec.branch, spec.config
    assert branch is not None, "this start begins a branch"
    content = read_state(checkpoint or branch.checkpoint)
    state = TrainState.from_json(content)
    if not branch.keeps_best:
        state.best, state.evaluations_since_best = None, 0
    if state.out_of_patience:
        state.out_of_patience, state.evaluations_since_best = False, 0
    state.data_origin = branch.data_origin(content, spec.train_set, config.batch_size, config.seed)
    return state


def take_over(run: Run, task: Task, spec: RunSpec) -> None:
    """Load what fits of the source's checkpoint into a new run, and save it. All ranks.

    The checkpoint of the best score comes first, since the run may return to it. One line says what
    became of each part.

    Raises:
        UserError: the weights do not fit.
    """
    branch = spec.branch
    assert branch is not None, "this start begins a branch"
    best, content = branch.best, read_state(branch.checkpoint)
    if run.state.best and best and best != branch.checkpoint:
        wait_until_visible(run.world, best)
        vars(run.state).update(vars(state_at_branch(spec, best)))
        list(load_parts(run, task, best))
        save_checkpoint(run, task)
        vars(run.state).update(vars(state_at_branch(spec)))
    for line in (
        *map(change_line, branch.changes.items()),
        *load_parts(run, task, branch.checkpoint),
        samples_line(run, branch, content),
        lr_line(run.config, content),
        best_line(run, branch, content["best"]),
    ):
        run.log.info(f"  {line}")
    if run.world.is_main and "data" not in branch.changes:
        run.data.skipped.extend(content["skipped"])
    save_checkpoint(run, task)


def change_line(change: tuple[str, list[object]]) -> str:
    """Return the line about a changed setting, (name, [old, new])."""
    name, (old, new) = change
    if isinstance(new, bool):
        return flag_of(name) if new else flag_of(f"no_{name}")
    was = "holds other samples than before" if old == new else f"was {old}"
    return f"{flag_of(name)} {new}: {was}"


def load_parts(run: Run, task: Task, folder: Path) -> Iterator[str]:
    """Load what fits of a checkpoint; yield a line about each part. All ranks."""
    content = read_state(folder)
    load_fitting_model(run, task, folder, content["step"])
    yield "weights: all taken over"
    try:
        with StoredTensors(folder, "optimizer") as stored:
            yield load_moments(state_by_name(run.optimizer, run.module), stored)
        if run.ema:
            yield load_ema(run, folder, content["settings"])
        elif content["settings"]["ema"]:
            yield "EMA: none from here on"
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: {error}", code="bad_checkpoint", file=str(folder)) from None
    if run.precision.name == content["settings"]["precision"]:
        run.precision.load_scaler_state(content["scaler"])
    elif run.precision.name == "fp16":
        yield "loss scale: begins anew"


def load_fitting_model(run: Run, task: Task, folder: Path, step: int) -> None:
    """Load the weights of a checkpoint. Raises UserError unless they fit the model as it is now."""
    try:
        load_model(run, task, folder, step)
    except (OSError, ValueError, RuntimeError) as error:  # torch's is one for other shapes
        if is_out_of_memory(error):
            raise
        why = str(error).splitlines()[-1].strip()
        raise UserError(
            f"{folder}: these weights do not fit the model of the branch ({why}); to train them "
            f"in another shape, start from them with --model {folder.parent.parent / 'best'}",
            code="bad_checkpoint",
            file=str(folder),
        ) from None


def load_moments(own: Mapping[str, torch.Tensor], stored: StoredTensors) -> str:
    """Load the entries of the optimizer's state whose names and shapes fit; return the line."""
    fitting = [name for name in own if stored.shapes.get(name) == tuple(own[name].shape)]
    rest = [name for name in own if name not in set(fitting)]
    for name in fitting:  # one by one: a stored tensor is read when it is asked for
        load_by_name({name: own[name]}, {name: stored[name]}, "optimizer state")
    if not rest:
        return "moments: all taken over"
    if not fitting:
        return "moments: begin at zero, the optimizer has others than that of the source"
    return (
        f"moments: {len(fitting)} of {len(own)} tensors taken over; {len(rest)} begin at zero, "
        f"the first is {rest[0]}"
    )


def load_ema(run: Run, folder: Path, old: JsonObject) -> str:
    """Load the EMA of a checkpoint, or begin it from the weights; return the line."""
    assert run.ema is not None, "a run with EMA"
    if not old["ema"]:
        run.ema.restart(run.module)
        return "EMA: begins with the weights, the source has none"
    with StoredTensors(folder, "ema") as stored:
        run.ema.load(stored)
    before = ema_decay_for(old["ema_decay"], old["steps"])
    decay = "" if run.ema.decay == before else f", decay {before:g} -> {run.ema.decay:g}"
    return f"EMA: taken over{decay}"


def samples_line(run: Run, branch: Branch, content: JsonObject) -> str:
    """Return the line about the samples of the first step."""
    sampler = run.data.sampler
    epoch, position = sampler.batch(content["step"])[0]
    if reset := [flag_of(name) for name in ("data", "seed") if name in branch.changes]:
        return f"samples: begin with epoch {epoch}, because of {' and '.join(reset)}"
    place = f"samples: go on after {position} of {sampler.num_samples} in epoch {epoch}"
    return place if sampler.origin == origin_of(content) else f"{place}, in other batches"


def lr_line(config: TrainConfig, content: JsonObject) -> str:
    """Return the line about the learning rate: a function of the step, which continues."""
    step, settings = content["step"], content["settings"]
    old = replace(config, **{name: settings[name] for name in SCHEDULE_SETTINGS})
    lr, before = lr_of(step, config), lr_of(max(0, step - 1), old)
    line = (
        f"learning rate: {lr:.2e} at step {step + 1}, {config.schedule} over {config.steps} steps"
    )
    if old == config:
        return f"{line}, as in the source"
    return f"{line}; the source had {before:.2e} at step {step}"


def best_line(run: Run, branch: Branch, best: JsonObject | None) -> str:
    """Return the line about the best score until then, {"step", "metric", "score"}."""
    if best is None:
        return "best score: none yet"
    spec = run.log.metrics.get(best["metric"])
    number = spec.show(best["score"]) if spec and best["score"] is not None else best["score"]
    score = f"{best['metric']} {number} of step {best['step']}"
    if branch.keeps_best:
        return f"best score: {score} taken over, with its weights in best/"
    if branch.best is None:
        return f"best score: begins anew; the checkpoint of {score} is gone"
    changed = next(flag_of(name) for name in SCORE_SETTINGS if name in branch.changes)
    return f"best score: begins anew, since scores before {changed} cannot be compared"
