"""Scores in columns, for people."""

from visionloop.engine.tables import show


def score_table(task, scores, intervals, reference, pictures):
    """Lines: every score with its 95 % interval where there is one, and what a trivial answer would score."""
    rows = []
    for spec in task.metrics:
        if spec.key not in scores:
            continue
        low_high = intervals.get(spec.key)
        shown = f"{spec.show(low_high[0])} to {spec.show(low_high[1])}" if low_high else ""
        rows.append((spec.label, show(spec, scores[spec.key]), shown))
    rows += [(label, show(task.metrics[0], value), "") for label, value in reference.items()]
    width = max(len(label) for label, _, _ in rows)
    lines = [f"{pictures} pictures" + (", 95 % intervals by bootstrap over pictures" if intervals else "")]
    return lines + [f"{label:<{width}}  {value:>9}  {interval}".rstrip() for label, value, interval in rows]
