"""What all rounds of a soak say together."""

import json
import statistics
from collections import Counter

from visionloop.engine.errors import FINISHED, STOPPED

SAFE_SECONDS = 5  # besides one step: how soon after SIGTERM a checkpoint must be safe
BETWEEN_KILLS = 600.0  # of the projection


def make_certificate(path):
    """The certificate of rounds.jsonl, as a dict for json.

    Useful work is a projection: of a run killed every 600 s, each kill costs a fresh start up to
    the end of its first step, and what was done since the newest checkpoint; both are means over
    what was measured here.
    """
    rounds = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    starts = [
        start | {"kind": row["kind"], "step_seconds": row["step_seconds"]}
        for row in rounds
        for start in row["starts"]
    ]
    stopped = [start for start in starts if start["killed"]]
    # where the signal came before a process was ready for it, nothing was to be saved, and another
    # may have waited for that one in vain
    asked = [
        start
        for start in stopped
        if "signal_seconds" in start and set(start["exit_codes"]) <= {FINISHED, STOPPED}
    ]
    waits, late = (
        [start["signal_seconds"] for start in asked],
        [s for s in asked if s["signal_seconds"] > s["step_seconds"] + SAFE_SECONDS],
    )
    restarts = [
        row["last"]["restart_seconds"]
        for row in rounds
        if row["last"]["fresh"] and row["last"]["restart_seconds"]
    ]
    repeated = [start["repeated_seconds"] for start in stopped if start["reached"]]
    return {
        "rounds": len(rounds),
        "stops": len(stopped),
        "fresh_starts": sum(start["fresh"] for start in starts)
        + sum(row["last"]["fresh"] for row in rounds),
        "by_kind_of_run": dict(sorted(Counter(start["kind"] for start in stopped).items())),
        "by_injury": dict(sorted(Counter(start["injury"] for start in stopped).items())),
        "damaged_checkpoints": sum(start.get("damaged", False) for start in starts),
        "lost_checkpoints": sum(start["lost"] for start in starts)
        + sum(row["last"]["lost"] for row in rounds),
        "unreadable_checkpoints": sum(len(start["unreadable"]) for start in starts),
        "unexpected_exits": sum(start["unexpected"] for start in starts),
        "hung": sum(start["hung"] for start in starts) + sum(row["last"]["hung"] for row in rounds),
        "rounds_that_differ": [row["kind"] for row in rounds if row["differing"]],
        "repeated_steps": sum(start["repeated_steps"] for start in stopped),
        "signals": {"asked": len(waits), "late": len(late)} | spread(waits),
        "signals_in": dict(Counter(start["injury"] for start in asked if start["in_phase"])),
        "restart_seconds": spread(restarts),
        "repeated_seconds": spread(repeated),
        "useful_work": 1 - (mean(restarts) + mean(repeated)) / BETWEEN_KILLS
        if restarts and repeated
        else None,
    }


def mean(values):
    return statistics.fmean(values) if values else 0.0


def spread(values):
    """{"mean", "median", "worst"} in seconds; {} of none."""
    return (
        {"mean": mean(values), "median": statistics.median(values), "worst": max(values)}
        if values
        else {}
    )


def holds(certificate):
    """True when nothing was lost, nothing differs and nothing ended otherwise than it should."""
    names = (
        "lost_checkpoints",
        "unreadable_checkpoints",
        "unexpected_exits",
        "hung",
        "rounds_that_differ",
    )
    return not any(certificate[name] for name in names) and not certificate["signals"]["late"]


def lines_of(certificate):
    """The certificate for people."""
    yield f"{certificate['stops']} stops in {certificate['rounds']} runs, {certificate['fresh_starts']} starts in a new interpreter"
    for name in ("by_kind_of_run", "by_injury"):
        yield f"{name.replace('_', ' ')}: " + ", ".join(
            f"{key} {number}" for key, number in certificate[name].items()
        )
    yield f"checkpoints damaged on purpose: {certificate['damaged_checkpoints']}"
    for name in (
        "lost_checkpoints",
        "unreadable_checkpoints",
        "unexpected_exits",
        "hung",
        "repeated_steps",
    ):
        yield f"{name.replace('_', ' ')}: {certificate[name]}"
    differing = ", ".join(certificate["rounds_that_differ"]) or "none"
    yield f"runs that differ from the undisturbed one: {differing}"
    signals = certificate["signals"]
    if signals["asked"]:
        yield (
            f"from SIGTERM to a safe checkpoint and the end: {signals['asked']} times, median {signals['median']:.2f} s, "
            f"worst {signals['worst']:.2f} s, {signals['late']} later than one step and {SAFE_SECONDS} s"
        )
    if certificate["useful_work"]:
        yield (
            f"useful work of a run killed every {BETWEEN_KILLS:.0f} s: {100 * certificate['useful_work']:.2f} % (projected: a fresh start "
            f"takes {certificate['restart_seconds']['mean']:.1f} s to its first step, {certificate['repeated_seconds']['mean']:.1f} s of "
            "work are repeated)"
        )
