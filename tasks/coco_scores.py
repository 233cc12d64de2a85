"""COCO's scores by size of the object, and its recalls, of boxes and masks. Imports no torch."""

from visionloop.engine.metric import MetricSpec

AREAS = {
    "small": "smaller than 32 x 32 px",
    "medium": "32 x 32 to 96 x 96 px",
    "large": "larger than 96 x 96 px",
}


def percent(key: str, label: str, description: str) -> MetricSpec:
    """Return the MetricSpec of a share, of which more is better."""
    return MetricSpec(key, label, "percent", True, description)


def scores_by_size(prefix: str, unit: str) -> tuple[MetricSpec, ...]:
    """Return AP by size of the object, and AR by number of predictions and by size.

    prefix: of the labels, e.g. "mask "; unit: what is counted, e.g. "box(es)".
    """
    return (
        *(
            percent(f"mAP_{area}", f"{prefix}AP {area}", f"average precision of objects {bounds}")
            for area, bounds in AREAS.items()
        ),
        *(
            percent(
                f"AR{n}", f"{prefix}AR {n}", f"average recall with {n} {unit} per image and class"
            )
            for n in (1, 10, 100)
        ),
        *(
            percent(f"AR_{area}", f"{prefix}AR {area}", f"average recall of objects {bounds}")
            for area, bounds in AREAS.items()
        ),
    )
