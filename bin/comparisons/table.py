"""The comparison as a table for people."""

import math
from collections.abc import Sequence

from visionloop.bin.comparisons.result import Comparison, Line
from visionloop.bin.comparisons.verdicts import amount, signed, words_of
from visionloop.engine.metric import MetricSpec

MOST_CLASSES = 50  # of a table; --json has all


def lines_of(result: Comparison, class_columns: Sequence[str]) -> list[str]:
    """Return a table for each setting beside the baseline, the verdicts and the notes.

    class_columns: scores by class of the task, of which the first one is compared.
    """
    lines = []
    titles = {
        "overall": "all images",
        "size": "by size of the object",
        "class": f"{class_columns[0]} by class" if class_columns else "",
    }
    for place, group in enumerate(result.groups):
        if place == result.baseline:
            continue
        baseline = result.groups[result.baseline]
        lines.append(
            f"{group.name}{seeds_text(group.seeds)} against {baseline.name}"
            f"{seeds_text(baseline.seeds)}: {result.images} images, {result.draws} draws"
        )
        for part, title in titles.items():
            chosen = [line for line in result.lines if line.part == part]
            if chosen:
                lines += ["", *part_lines(result, place, chosen[:MOST_CLASSES], title)]
            if len(chosen) > MOST_CLASSES:
                lines.append(f".. {len(chosen) - MOST_CLASSES} more, see --json")
        lines.append("")
    lines += [verdict["en"] for verdict in result.verdicts if verdict]
    return lines + [f"note: {note['en']}" for note in result.notes]


def seeds_text(seeds: Sequence[object]) -> str:
    """Return the number of seeds in brackets; nothing for a single run."""
    return f" ({len(seeds)} seeds)" if len(seeds) > 1 else ""


def part_lines(result: Comparison, place: int, chosen: Sequence[Line], title: str) -> list[str]:
    """Return the rows of one part of the table of one setting."""
    rows = [(title, "baseline", "this", "difference", "95 % interval", "")]
    for line in chosen:
        difference, code = line.differences[place], line.codes[place]
        assert difference is not None and code is not None, "of the baseline itself"
        spec = line.spec
        measured = not math.isnan(difference.low)
        rows.append(
            (
                spec.label,
                score_text(line, result.baseline),
                score_text(line, place),
                signed(difference.value, spec) if measured else "-",
                f"{signed(difference.low, spec)} to {signed(difference.high, spec)}"
                if measured
                else "-",
                words_of(difference, spec, code, result.images),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(row[column].rjust(widths[column]) for column in range(1, 5)),
                row[5],
            ]
        ).rstrip()
        for row in rows
    ]


def score_text(line: Line, place: int) -> str:
    """Return a score, with the spread over the seeds where there are several."""
    text, deviation = line.spec.show(line.scores[place]), line.spreads[place]
    return text if math.isnan(deviation) else f"{text} ± {spread_text(deviation, line.spec)}"


def spread_text(deviation: float, spec: MetricSpec) -> str:
    """Return a standard deviation without its unit, which the score beside it has."""
    return amount(deviation, spec).removesuffix(" points")
