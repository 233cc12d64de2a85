"""Scores of object detection: names, formats and meanings. Imports no torch."""

from visionloop.engine.metric import MetricSpec

AREAS = {
    "small": "smaller than 32 x 32 px",
    "medium": "32 x 32 to 96 x 96 px",
    "large": "larger than 96 x 96 px",
}


def _percent(key: str, label: str, description: str) -> MetricSpec:
    return MetricSpec(key, label, "percent", True, description)


METRICS = (
    _percent("mAP", "AP", "average precision over classes and over IoU 0.50 to 0.95 (COCO's AP)"),
    _percent("mAP50", "AP50", "average precision at IoU 0.50"),
    _percent("mAP75", "AP75", "average precision at IoU 0.75"),
    *(
        _percent(f"mAP_{area}", f"AP {area}", f"average precision of objects {bounds}")
        for area, bounds in AREAS.items()
    ),
    *(
        _percent(f"AR{n}", f"AR {n}", f"average recall with {n} box(es) per image and class")
        for n in (1, 10, 100)
    ),
    *(
        _percent(f"AR_{area}", f"AR {area}", f"average recall of objects {bounds}")
        for area, bounds in AREAS.items()
    ),
    MetricSpec(
        "val_loss",
        "validation loss",
        "float",
        False,
        "VFL, L1 and GIoU loss of the last decoder layer by its own matching, per box",
    ),
)
# for the images that an evaluation draws
SAMPLE_SCORE = MetricSpec(
    "loss_per_box",
    "loss per box",
    "float",
    False,
    "the validation loss of the image over its boxes",
)
