"""`check`, the same for every task: the data, then a run in miniature, before hours are spent on them."""

import json
import sys
import time
from functools import partial

from visionloop.bin.commands.estimate import estimate_run
from visionloop.bin.commands.overfit import learn_by_heart, require_goal
from visionloop.bin.commands.sheet import require_png, write_sheet
from visionloop.engine.config import build
from visionloop.engine.continuing import LENGTHS
from visionloop.engine.distributed import pick_device
from visionloop.engine.errors import FINISHED, USER_ERROR, UserError
from visionloop.engine.order import seed_host
from visionloop.engine.settings import TrainConfig
from visionloop.engine.train import resolve_settings
from visionloop.engine.value_types import duration_text

FAR_OFF = 0.5  # share by which the first loss may miss its expected value


def run_check(task_class, flags, *, config_file, as_json, sheet=None, began=None):
    """Print every error and warning at once, then what the run would cost. Returns the exit code: 2 with an error.

    sheet: a .png to write training pictures to; began: when the command was started, by time.monotonic(). With --overfit N, N pictures are
    learned by heart, which takes minutes.
    """
    getting_ready = time.monotonic() - began if began else 0.0
    settings = resolve_settings(task_class, flags, config_file)
    task = task_class(build(task_class.config_class, settings))
    if sheet:
        require_png(sheet)
    if settings["overfit"].value:
        require_goal(task)
    found = task.check_data()
    lines, say = found.pop("lines", []), partial(print, file=sys.stderr if as_json else sys.stdout, flush=True)
    estimate = {"memory_gib": None, "disk_gib": None, "seconds": None}
    if not found["errors"]:  # a step on data with known errors would only repeat them
        try:
            tried, more = try_out(task, settings, found, sheet, getting_ready)
            estimate, lines = tried.as_json(), lines + more
            if tried.config.overfit:
                learned, why = learn_by_heart(task, tried.config, device=pick_device(tried.config.device), say=say)
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


def try_out(task, given, found, sheet, getting_ready):
    """(Estimate, lines for people) of a run in miniature. getting_ready: seconds that this process took to be ready for the data."""
    began = time.monotonic()
    seed_host(given["seed"].value)
    train, val = task.build_datasets()
    getting_ready += time.monotonic() - began
    lines = []
    if sheet:
        write_sheet(task, train, build(TrainConfig, given), sheet)
        lines.append(f"written: {sheet}")
    estimate = estimate_run(task, given, train, val, getting_ready=getting_ready)
    lines.append(f"{len(train)} training and {len(val)} validation pictures")
    expected, first = task.expected_first_loss(), estimate.first_loss
    if expected is not None:
        lines.append(f"loss at initialisation {first:.3f}, expected {expected:.3f}")
        if not abs(first - expected) <= FAR_OFF * expected:
            why = f"the loss at initialisation is {first:.3f}, far from the {expected:.3f} of a model that knows nothing"
            found["warnings"].append({"path": task.config.model, "why": why})
    length = "steps" if any(given[name].value for name in LENGTHS) else "steps (one epoch: no length is given)"
    told = estimate.as_json()
    lines.append(
        f"{estimate.config.steps} {length} on one process: about {duration_text(told['seconds'])}, "
        f"{told['memory_gib']} GiB of memory, {told['disk_gib']} GiB on disk"
    )
    return estimate, lines
