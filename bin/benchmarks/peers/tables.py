"""Tables of a comparison: the runs of each implementation, and ratios of visionloop to them."""

import statistics
from collections.abc import Sequence
from itertools import permutations

from visionloop.bin.benchmarks.measurement import ratio_with_interval
from visionloop.bin.benchmarks.peers.recipes import OWN_PRESET, SAME_RECIPE, SPEED
from visionloop.bin.benchmarks.peers.runner import SCORES
from visionloop.bin.benchmarks.results import Row

MIN_PAIRS = 3  # for an interval
Groups = dict[tuple[str, str], list[Row]]


def group_runs(rows: Sequence[Row]) -> Groups:
    """Return {(comparison, title): rows by seed}."""
    groups: Groups = {}
    for row in sorted(rows, key=lambda row: row["seed"]):
        groups.setdefault((row["comparison"], row["title"]), []).append(row)
    return groups


def run_rows(task_name: str, groups: Groups) -> list[Row]:
    """Return one table row per comparison and implementation, with all its seeds."""
    table = []
    for (comparison, title), runs in groups.items():
        line: Row = {"comparison": comparison, "implementation": title}
        for name in ("samples_per_second", *(SCORES[task_name] if comparison != SPEED else ())):
            values, digits = [run[name] for run in runs], 1 if "second" in name else 4
            line[name] = ", ".join(f"{value:.{digits}f}" for value in values)
            line[f"median_{name}"] = round(statistics.median(values), digits)
        line["peak_mib"] = round(statistics.median(run["peak_mib"] for run in runs))
        table.append(line)
    return table


def ratio_rows(task_name: str, groups: Groups) -> list[Row]:
    """Return visionloop relative to every other implementation, by pairs of one seed."""
    table = []
    for ((comparison, title), own), ((kind, other_title), other) in permutations(groups.items(), 2):
        is_ours, is_other = (rows[0]["implementation"] == "visionloop" for rows in (own, other))
        same_runs = SAME_RECIPE if comparison == OWN_PRESET else comparison
        if is_ours and not is_other and kind == same_runs:
            names = {"comparison": comparison, "implementation": title, "against": other_title}
            table.append(names | ratio_figures(task_name, own, other))
    return table


def ratio_figures(task_name: str, own: Sequence[Row], other: Sequence[Row]) -> Row:
    """Return {figure: value} of two groups of runs. Seeds of one alone count for scores only."""
    by_seed = {run["seed"]: run for run in other}
    pairs = [(run, by_seed[run["seed"]]) for run in own if run["seed"] in by_seed]
    rates = [[run["samples_per_second"] for run in runs] for runs in zip(*pairs, strict=True)]
    ratio, (low, high) = ratio_with_interval(*rates)
    memory = statistics.median(a["peak_mib"] / b["peak_mib"] for a, b in pairs)
    row: Row = {"pairs": len(pairs), "times_as_fast": round(ratio, 2)}
    row["95_percent"] = f"{low:.2f} to {high:.2f}" if len(pairs) >= MIN_PAIRS else None
    row["times_the_memory"] = round(memory, 2)
    name = SCORES[task_name][0]
    if name in own[0]:
        first, second = ([run[name] for run in runs] for runs in (own, other))
        row[f"{name}_difference"] = round(statistics.mean(first) - statistics.mean(second), 4)
        overlap = max(min(first), min(second)) <= min(max(first), max(second))
        row["ranges_of_seeds_overlap"] = "yes" if overlap else "no"
    return row
