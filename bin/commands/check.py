"""`check`, the same for every task: the data, then one real step, before hours are spent on them."""

import json
import statistics
import sys
import time
from dataclasses import replace
from functools import partial

import torch

from visionloop.bin.commands.overfit import learn_by_heart, require_goal
from visionloop.bin.commands.sheet import require_png, write_sheet
from visionloop.engine.config import build
from visionloop.engine.continuing import DEFAULT_MICRO_BATCH
from visionloop.engine.distributed import pick_device
from visionloop.engine.errors import FINISHED, USER_ERROR, UserError
from visionloop.engine.optim import build_optimizer
from visionloop.engine.order import seed_host
from visionloop.engine.precision import build_precision
from visionloop.engine.prepare import freeze
from visionloop.engine.profiling import peak_gib
from visionloop.engine.settings import TrainConfig
from visionloop.engine.train import resolve_settings

TIMED_STEPS = 3
FAR_OFF = 0.5  # share by which the first loss may miss its expected value
GIB = 2**30


def run_check(task_class, flags, *, config_file, as_json, sheet=None):
    """Print every error and warning at once, then what the run would cost. Returns the exit code: 2 with an error.

    sheet: a .png to write training pictures to. With --overfit N, N pictures are learned by heart, which takes minutes.
    """
    settings = resolve_settings(task_class, flags, config_file)
    config = build(TrainConfig, settings)
    advised = task_class.settle({name: setting.value for name, setting in settings.items()}, config.steps or 1)
    config = replace(config, micro_batch=config.micro_batch or advised.get("micro_batch", DEFAULT_MICRO_BATCH))
    task = task_class(build(task_class.config_class, settings))
    if sheet:
        require_png(sheet)
    if config.overfit:
        require_goal(task)
    found = task.check_data()
    lines, say = found.pop("lines", []), partial(print, file=sys.stderr if as_json else sys.stdout, flush=True)
    estimate = {"memory_gib": None, "disk_gib": None, "seconds": None}
    if not found["errors"]:  # a step on data with known errors would only repeat them
        try:
            estimate, more = try_steps(task, config, found, sheet)
            lines += more
            if config.overfit:
                learned, why = learn_by_heart(task, config, device=pick_device(config.device), say=say)
                lines += [learned] if learned else []
                found["errors"] += [{"path": settings["data"].value, "why": why}] if why else []
        except UserError as error:
            found["errors"].append({"path": error.file or settings["data"].value, "why": str(error)})
    for kind in ("errors", "warnings"):
        for row in found[kind]:
            print(f"{kind[:-1]}: {row['path']}: {row['why']}", file=sys.stderr)
    if as_json:
        print(json.dumps(found | {"estimate": estimate}))
    else:
        lines = [f"{name}: {count}" for name, count in found["classes"].items()] + lines
        print("\n".join([*lines, f"{len(found['errors'])} error(s), {len(found['warnings'])} warning(s)"]))
    return USER_ERROR if found["errors"] else FINISHED


def try_steps(task, config, found, sheet=None):
    """A few real optimizer steps of the chosen model: ({"memory_gib", "disk_gib", "seconds"}, lines for people)."""
    device = pick_device(config.device)
    if config.threads:
        torch.set_num_threads(config.threads)
    seed_host(config.seed)
    train, val = task.build_datasets()
    if sheet:
        write_sheet(task, train, config, sheet)
    module = task.build_model().to(device)
    freeze(task, module, config)
    optimizer = build_optimizer(task.parameter_groups(module), module, config)
    precision = build_precision(config.precision, device, tf32=config.tf32)
    size = min(config.batch_size, config.micro_batch, len(train))
    if size < task.smallest_piece(module):
        raise UserError(f"--micro-batch: this training needs at least {task.smallest_piece(module)} samples at once", field="micro_batch")
    losses, seconds = [], []
    for step in range(TIMED_STEPS + 1):
        began = time.perf_counter()
        picks = torch.randperm(len(train))[:size].tolist()
        batch = task.collate([train[i] | {"sample_id": torch.tensor(i)} for i in picks], step, 0).to(device)
        task.before_step(module, step, config.steps or TIMED_STEPS + 1)
        with precision.autocast():
            terms = task.loss(module, batch, {name: number or 1 for name, number in task.count([batch]).items()})
        terms["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(terms["loss"].item())
        seconds.append(time.perf_counter() - began)
    return summary(task, config, found, module, losses, statistics.median(seconds[1:]) * config.batch_size / size, (len(train), len(val)))


def summary(task, config, found, module, losses, step_seconds, sizes):
    """(estimate, lines). step_seconds: of one optimizer step on one process; sizes: training and validation pictures."""
    expected = task.expected_first_loss()
    lines = [f"{sizes[0]} training and {sizes[1]} validation pictures"]
    if expected is not None:
        lines.append(f"loss at initialisation {losses[0]:.3f}, expected {expected:.3f}")
        if not abs(losses[0] - expected) <= FAR_OFF * expected:
            why = f"the loss at initialisation is {losses[0]:.3f}, far from the {expected:.3f} of a model that knows nothing"
            found["warnings"].append({"path": task.config.model, "why": why})
    steps_per_epoch = max(1, round(sizes[0] / config.batch_size))
    steps = config.steps or max(1, round((config.epochs or 1) * steps_per_epoch))
    evaluation = sizes[1] / config.batch_size * step_seconds / 3  # a forward is about a third of a step
    times = max(1, steps // (config.eval_every or max(steps_per_epoch, -(-steps // 20))))
    weights = sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
    # a checkpoint: weights, two moments of the optimizer, the average; `keep` of them, the best one, and best/
    folders = config.keep + 1
    estimate = {
        "memory_gib": round(peak_gib(next(module.parameters()).device), 3),
        "disk_gib": round(weights * ((3 + config.ema) * folders + 1) / GIB, 3),
        "seconds": round(steps * step_seconds + times * evaluation, 1),
    }
    length = "steps" if config.steps or config.epochs else "steps (one epoch: neither --steps nor --epochs is given)"
    lines.append(
        f"{steps} {length} on one process: "
        f"about {estimate['seconds']:.0f} s, {estimate['memory_gib']} GiB of memory, {estimate['disk_gib']} GiB on disk"
    )
    return estimate, lines

