"""What a comparison found: the runs of each side, and how many times as fast ours is as another."""

import statistics

from visionloop.bin.benchmarks.comparisons.runs import SCORES
from visionloop.bin.benchmarks.ratios import ratio_with_interval

ENOUGH = 3  # pairs, for an interval
WAYS = ("precision", "compile", "keep")


def groups_of(rows):
    """{(comparison, side, ways): rows in order of seed}, in the order in which they began. Runs that failed are in none."""
    groups = {}
    for row in sorted(rows, key=lambda row: row["seed"]):
        if "error" not in row:
            groups.setdefault(
                (row["comparison"], row["side"], tuple(row[way] for way in WAYS)), []
            ).append(row)
    return groups


def side_rows(task_name, rows):
    """[{column: text or number}]: one for each side and way of a task, with all its seeds."""
    table = []
    for (comparison, side, _), runs in groups_of(rows).items():
        line = {"side": side, "comparison": comparison, "flags": runs[0]["flags"]}
        line |= {
            "samples_per_second": listed(runs, "samples_per_second", 1),
            "median": round(median_rate(runs), 1),
        }
        line["peak_mib"] = round(statistics.median(map(peak, runs)))
        for name in SCORES[task_name] if comparison != "speed" else ():
            line |= {
                name: listed(runs, name, 4),
                f"mean_{name}": round(statistics.mean(run[name] for run in runs), 4),
            }
        table.append(line)
    return table


def ratio_rows(task_name, rows):
    """[{column: text or number}]: ours against every other side, by pairs of one seed; in speed also each with its fastest flags."""
    groups, table = groups_of(rows), []
    for (comparison, side, ways), own in groups.items():
        if side == "visionloop":
            other_comparison = "speed" if comparison == "speed" else "same"
            for (name, other_side, other_ways), other in groups.items():
                if (
                    other_side != side
                    and name == other_comparison
                    and (comparison != "speed" or ways == other_ways)
                ):
                    table.append(ratio_row(task_name, comparison, own, other))
    fastest = {}
    for (comparison, side, _), runs in groups.items():
        if comparison == "speed":
            fastest.setdefault(side, []).append(runs)
    if any(len(ways) > 1 for ways in fastest.values()):
        best = {side: max(ways, key=median_rate) for side, ways in fastest.items()}
        table += [
            ratio_row(task_name, "speed, fastest flags", best["visionloop"], runs)
            for side, runs in best.items()
            if side != "visionloop"
        ]
    return table


def ratio_row(task_name, comparison, own, other):
    """{column: text or number} of two groups of runs. Seeds that one of them lacks count for scores alone."""
    seeds = {run["seed"]: run for run in other}
    pairs = [(run, seeds[run["seed"]]) for run in own if run["seed"] in seeds]
    rates = [[run["samples_per_second"] for run in side] for side in zip(*pairs, strict=True)]
    memory = statistics.median(peak(mine) / peak(theirs) for mine, theirs in pairs)
    ratio, interval = ratio_with_interval(*rates)
    row = {
        "comparison": comparison,
        "ours": own[0]["flags"],
        "against": f"{other[0]['side']} ({other[0]['flags']})",
        "pairs": len(pairs),
    }
    row |= {
        "times_as_fast": round(ratio, 2),
        "95_percent": "{:.2f} to {:.2f}".format(*interval) if len(pairs) >= ENOUGH else None,
    }
    row["times_the_memory"] = round(memory, 2)
    if not comparison.startswith("speed"):
        name = SCORES[task_name][0]
        mine, theirs = ([run[name] for run in side] for side in (own, other))
        row[f"{name}_difference"] = round(statistics.mean(mine) - statistics.mean(theirs), 4)
        row["equal_within_range_of_seeds"] = within_range(mine, theirs)
    return row


def within_range(first, second):
    """ "yes" where the ranges that two lists of scores span touch each other, "no" where they do not; None for single scores."""
    if min(len(first), len(second)) < 2:
        return None
    return "yes" if max(min(first), min(second)) <= min(max(first), max(second)) else "no"


def median_rate(runs):
    return statistics.median(run["samples_per_second"] for run in runs)


def peak(run):
    """Most memory, MiB: of the allocator on CUDA, else of the process."""
    return run["peak_allocated_mib" if run["device"] == "cuda" else "peak_resident_mib"]


def listed(runs, name, digits):
    return ", ".join(f"{run[name]:.{digits}f}" for run in runs)
