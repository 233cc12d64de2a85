"""Curves of a run: what was logged against steps, thinned so that a page stays small."""

from visionloop.bin.reports.run_folder import as_object, is_number, number_or_none

MOST_POINTS = 2000
ABOUT = ("time", "step", "epoch", "kind")
RATES = ("lr", "grad_norm")
SPEED = ("step_ms", "data_wait")


def training_curves(lines):
    """[{"name", "group", "logged", "gaps", "steps", "values", "low", "high"}] of the `train` lines.

    logged: how many points there were; gaps: how many of them are no finite number; low, high: None
    of a curve that is short enough.
    """
    named = ((name, value) for line in lines for name, value in line.items() if name not in ABOUT)
    names = dict.fromkeys(name for name, value in named if value is None or is_number(value))
    found = []
    for name in names:
        points = [(line["step"], number_or_none(line[name])) for line in lines if name in line]
        gaps = sum(value is None for _, value in points)
        found.append(
            {"name": name, "group": group_of(name), "logged": len(points), "gaps": gaps}
            | summarize(points)
        )
    return found


def summarize(points, most=MOST_POINTS):
    """{"steps", "values", "low", "high"} of [(step, value or None)]: as they are, or means of at most `most` / 2 equal stretches.

    Means and not some of the points, so that smoothing them is smoothing the run; low, high: the
    least and the greatest of each stretch, so that no spike is lost.
    """
    if len(points) <= most:
        return {
            "steps": [step for step, _ in points],
            "values": [short(value) for _, value in points],
            "low": None,
            "high": None,
        }
    rows = []
    for stretch in stretches(len(points), most // 2):
        known = [points[i][1] for i in stretch if points[i][1] is not None]
        numbers = (sum(known) / len(known), min(known), max(known)) if known else (None, None, None)
        rows.append((points[stretch[len(stretch) // 2]][0], *map(short, numbers)))
    return dict(
        zip(("steps", "values", "low", "high"), map(list, zip(*rows, strict=True)), strict=True)
    )


def stretches(number, parts):
    """[range]: range(number) in so many parts, as equal as they can be."""
    return [range(i * number // parts, (i + 1) * number // parts) for i in range(parts)]


def group_of(name):
    """loss, rate, speed or other: which curves stand together."""
    if name == "loss" or name.startswith("loss_"):
        return "loss"
    if name.startswith(RATES):
        return "rate"
    return "speed" if name in SPEED else "other"


def score_curves(lines, intervals):
    """[{"key", "logged", "steps", "values", "raw", "low", "high"}] of the `eval` lines.

    intervals: {step: {key: [low, high]}}. raw: of the training weights beside averaged ones; a list
    without any number is None.
    """
    keys = dict.fromkeys(key for line in lines for key in as_object(line.get("metrics")))
    found = []
    for key in keys:
        with_key = [line for line in lines if key in as_object(line.get("metrics"))]
        values = [number_or_none(line["metrics"][key]) for line in with_key]
        kept = thin(values)
        chosen = [with_key[i] for i in kept]
        spans = [intervals.get(line["step"], {}).get(key) or (None, None) for line in chosen]
        found.append(
            {
                "key": key,
                "logged": len(values),
                "steps": [line["step"] for line in chosen],
                "values": [short(values[i]) for i in kept],
                "raw": some(
                    [
                        short(number_or_none(as_object(line.get("metrics_raw")).get(key)))
                        for line in chosen
                    ]
                ),
                "low": some([short(low) for low, _ in spans]),
                "high": some([short(high) for _, high in spans]),
            }
        )
    return found


def thin(values, most=MOST_POINTS):
    """Which indices to keep, rising: all of them, or at most `most` with the first, the last, and of each of equal stretches the least,
    the greatest and one gap (None), so that neither a spike nor a hole is lost."""
    if len(values) <= most:
        return list(range(len(values)))
    kept = {0, len(values) - 1}
    for stretch in stretches(len(values), (most - 2) // 3):
        known = [j for j in stretch if values[j] is not None]
        if known:
            kept |= {min(known, key=values.__getitem__), max(known, key=values.__getitem__)}
        if len(known) < len(stretch):
            kept.add(next(j for j in stretch if values[j] is None))
    return sorted(kept)


def short(value):
    """Six digits are more than a chart shows, and a third of the bytes."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def some(values):
    return values if any(value is not None for value in values) else None
