"""The report of all rounds of a kill test."""

import json
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from visionloop.engine.errors import FINISHED, STOPPED

Report = dict[str, object]
# seconds besides one step in which a checkpoint must be safe after SIGTERM
SAFE_SECONDS = 5
SECONDS_BETWEEN_KILLS = 600.0  # of the projection


def make_report(path: Path) -> Report:
    """Return the report of rounds.jsonl, as a dict for json.

    Useful work is a projection: of a run killed every 600 s, each kill costs a fresh start up to
    the end of its first step, and the work since the newest checkpoint. Both are measured means.
    """
    lines = path.read_text().splitlines() if path.exists() else []
    rounds = [json.loads(line) for line in lines]
    last = [row["last"] for row in rounds]
    starts = [
        start | {"case": row["case"], "step_seconds": row["step_seconds"]}
        for row in rounds
        for start in row["starts"]
    ]
    stopped = [start for start in starts if start["stopped"]]
    # A signal that came before a process handled it had nothing to save, and another process may
    # have waited for that one until its timeout.
    handled = [
        start
        for start in stopped
        if "signal_seconds" in start and set(start["exit_codes"]) <= {FINISHED, STOPPED}
    ]
    waits = [start["signal_seconds"] for start in handled]
    late = [s for s in handled if s["signal_seconds"] > s["step_seconds"] + SAFE_SECONDS]
    restarts = [row["restart_seconds"] for row in last if row["fresh"] and row["restart_seconds"]]
    repeated = [start["repeated_seconds"] for start in stopped if start["reached"]]
    useful = 1 - (mean(restarts) + mean(repeated)) / SECONDS_BETWEEN_KILLS
    return {
        "rounds": len(rounds),
        "stops": len(stopped),
        "fresh_starts": sum(start["fresh"] for start in [*starts, *last]),
        "by_case": dict(sorted(Counter(start["case"] for start in stopped).items())),
        "by_mode": dict(sorted(Counter(start["mode"] for start in stopped).items())),
        "damaged_checkpoints": sum(start.get("damaged", False) for start in starts),
        "lost_checkpoints": sum(start["lost"] for start in [*starts, *last]),
        "invalid_checkpoints": sum(len(start["invalid"]) for start in starts),
        "unexpected_exits": sum(start["unexpected"] for start in starts),
        "hung": sum(start["hung"] for start in [*starts, *last]),
        "differing_runs": [row["case"] for row in rounds if row["differing"]],
        "repeated_steps": sum(start["repeated_steps"] for start in stopped),
        "signals": {"handled": len(waits), "late": len(late)} | summary(waits),
        "signals_in_phase": dict(Counter(start["mode"] for start in handled if start["in_phase"])),
        "restart_seconds": summary(restarts),
        "repeated_seconds": summary(repeated),
        "useful_work": useful if restarts and repeated else None,
    }


def mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else 0.0


def summary(values: Sequence[float]) -> dict[str, float]:
    """Return {"mean", "median", "worst"} in seconds; {} without values."""
    if not values:
        return {}
    return {"mean": mean(values), "median": statistics.median(values), "worst": max(values)}


def passes(report: Report) -> bool:
    """Return whether nothing was lost, nothing differs and every process ended as it should."""
    failures = ("lost_checkpoints", "invalid_checkpoints", "unexpected_exits", "hung")
    is_clean = not any(report[name] for name in (*failures, "differing_runs"))
    return is_clean and not report["signals"]["late"]


def report_lines(report: Report) -> Iterator[str]:
    """Yield the lines of the report as text."""
    yield (
        f"{report['stops']} stops in {report['rounds']} runs, "
        f"{report['fresh_starts']} starts in a new interpreter"
    )
    for name, title in (("by_case", "by case"), ("by_mode", "by failure mode")):
        counts = ", ".join(f"{key} {number}" for key, number in report[name].items())
        yield f"{title}: {counts}"
    yield f"checkpoints damaged on purpose: {report['damaged_checkpoints']}"
    names = ("lost_checkpoints", "invalid_checkpoints", "unexpected_exits", "hung")
    for name in (*names, "repeated_steps"):
        yield f"{name.replace('_', ' ')}: {report[name]}"
    differing = ", ".join(report["differing_runs"]) or "none"
    yield f"runs that differ from the undisturbed one: {differing}"
    signals = report["signals"]
    if signals["handled"]:
        yield (
            f"from SIGTERM to the end, with a checkpoint: {signals['handled']} times, "
            f"median {signals['median']:.2f} s, worst {signals['worst']:.2f} s, "
            f"{signals['late']} later than one step and {SAFE_SECONDS} s"
        )
    if report["useful_work"]:
        yield (
            f"useful work of a run killed every {SECONDS_BETWEEN_KILLS:.0f} s: "
            f"{100 * report['useful_work']:.2f} % (projected: a fresh start takes "
            f"{report['restart_seconds']['mean']:.1f} s to its first step, and "
            f"{report['repeated_seconds']['mean']:.1f} s of work are repeated)"
        )
