"""Settings that are chosen on this machine before the first step: shard, micro-batch, steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from visionloop.engine.autotune.micro_batch import find_micro_batch, refuse_sharding
from visionloop.engine.autotune.shard import choose_sharding
from visionloop.engine.autotune.steps import budget_message, estimate_steps, settings_key
from visionloop.engine.budget import Budget, resumed_budget
from visionloop.engine.config.options import AUTO, Settings, SettingSource
from visionloop.engine.config.resolve import ResolvedSettings, given_length
from visionloop.engine.run import RunSpec
from visionloop.engine.types import JsonObject

# {name: measured value} -> the settings of the run with those values
Resolve: TypeAlias = Callable[[Mapping[str, object]], ResolvedSettings]


def resolve_budget(
    raw_settings: Settings,
    resolved: ResolvedSettings,
    state: JsonObject | None,
    record: JsonObject,
    *,
    output: Path,
    began: float,
) -> Budget | None:
    """Return the budget of this start, None for a run without --budget.

    All ranks; only the clock of the main rank counts. Without a checkpoint the steps of an earlier
    start are reused if nothing else has changed.

    Args:
        raw_settings: of the command line.
        resolved: the settings of the run.
        state: state.json of the checkpoint to resume from, or None.
        record: content of budget.json.
        output: the folder of the run.
        began: when this start began, by time.monotonic().

    Raises:
        UserError: the schedule of the run was made for another budget.
    """
    if given_length(raw_settings) != "budget":
        return None
    seconds = raw_settings["budget"].value
    key = settings_key(resolved)
    if state:
        return resumed_budget(output, seconds, began, record, steps=state["settings"]["steps"])
    if record and (record["budget_seconds"], record["key"]) == (seconds, key):
        return resumed_budget(output, seconds, began, record, steps=record["steps"])
    return Budget(output, seconds, began, key=key)


def autotune_settings(
    spec: RunSpec,
    raw_settings: Settings,
    stored: JsonObject,
    resolve: Resolve,
    *,
    budget: Budget | None,
    stop: Callable[[], bool],
    report: Callable[[str], object],
) -> dict[str, object] | None:
    """Measure what is to be measured of "shard", "micro_batch" and "steps". All ranks agree.

    Args:
        spec: the inputs of the run, before measuring.
        raw_settings: of the command line.
        stored: the run's settings.json, {} for a new run.
        resolve: resolves the settings with measured values; changes nothing.
        budget: of the run, None without one.
        stop: called repeatedly; True stops the measurement.
        report: prints a line, on the main rank.

    Returns:
        {setting: value}, None after a stop.
    """
    measured: dict[str, object] = {}
    if raw_settings["shard"].value == AUTO:
        measured["shard"], reason = choose_sharding(spec)
        report(f"shard auto: {measured['shard']} ({reason})")
    first = stored.get("micro_batch", {})  # at the first start of the run
    if raw_settings["micro_batch"].value == AUTO and first.get("source") != SettingSource.AUTO:
        refuse_sharding(str(measured.get("shard", spec.config.shard)))
        size, reason = find_micro_batch(spec)
        measured["micro_batch"] = size
        report(f"micro-batch auto: {size} ({reason})")
    if budget and budget.steps:
        return measured | ({} if stored else {"steps": budget.steps})
    if budget:

        def resolve_steps(steps: int) -> ResolvedSettings:
            return resolve(measured | {"steps": steps})

        own_budget = budget if spec.world.is_main else None
        steps = estimate_steps(spec, resolve_steps, budget=own_budget, stop=stop)
        if steps is None:
            return None
        measured["steps"] = steps
        if own_budget:
            report(budget_message(steps, own_budget))
            own_budget.write()
    return measured
