"""Settings that depend on the data and on this machine: --budget and --micro-batch auto are measured before the first step, once."""

from visionloop.engine.autotune.micro_batch import find_micro_batch
from visionloop.engine.autotune.steps import find_steps, key_of, told
from visionloop.engine.budget import Budget, continued_budget
from visionloop.engine.config.options import AUTO, build
from visionloop.engine.config.resolve import given_length, settle
from visionloop.engine.config.train_config import TrainConfig


def resolve_budget(given, settings, immutable_settings, state, record, *, output, began):
    """The Budget of this start, None for a run without one. On all ranks, though the main one's clock alone counts.

    state: of the checkpoint to go on from, or None; record: of budget.json. Without a checkpoint
    the steps of an earlier start are kept where nothing else has changed. Raises UserError for
    another budget than the one that the schedule was made for.
    """
    if given_length(given) != "budget":
        return None
    seconds, key = given["budget"].value, key_of(immutable_settings, settings)
    if state:
        return continued_budget(output, seconds, began, record, steps=state["settings"]["steps"])
    if record and (record["budget_seconds"], record["key"]) == (seconds, key):
        return continued_budget(output, seconds, began, record, steps=record["steps"])
    return Budget(output, seconds, began, key=key)


def autotune_settings(task, given, world, train_set, val, stored, *, budget, output, stop, say):
    """{"micro_batch", "steps"}, as far as they are to be measured; None after a stop. All ranks agree."""
    found = {}
    if given["micro_batch"].value == AUTO and stored.get("micro_batch", {}).get("source") != "auto":
        settings, _ = settle(task, given, world, train_set, stored)
        size, why = find_micro_batch(task, build(TrainConfig, settings), world, train_set)
        found["micro_batch"] = size
        say(f"micro-batch auto: {size} ({why})")
    if budget and budget.steps:
        return found | ({} if stored else {"steps": budget.steps})
    if budget:

        def resolve(steps):
            return build(
                TrainConfig,
                settle(task, given, world, train_set, stored, found | {"steps": steps})[0],
            )

        own = budget if world.is_main else None
        steps = find_steps(
            task, resolve, world, train_set, val, budget=own, output=output, stop=stop
        )
        if steps is None:
            return None
        found["steps"] = steps
        if own:
            say(told(resolve(steps), own.figures, own))
            own.write()
    return found
