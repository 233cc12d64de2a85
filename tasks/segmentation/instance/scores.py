"""Scores of instance segmentation: names, formats and meanings. Imports no torch."""

from visionloop.engine.metric import MetricSpec

AREAS = {
    "small": "smaller than 32 x 32 px",
    "medium": "32 x 32 to 96 x 96 px",
    "large": "larger than 96 x 96 px",
}


def _percent(key: str, label: str, description: str) -> MetricSpec:
    return MetricSpec(key, label, "percent", True, description)


METRICS = (
    _percent("mAP", "mask AP", "average precision of masks over classes and over IoU 0.50 to 0.95"),
    _percent("mAP50", "mask AP50", "average precision of masks at IoU 0.50"),
    _percent("mAP75", "mask AP75", "average precision of masks at IoU 0.75"),
    *(
        _percent(f"mAP_{area}", f"mask AP {area}", f"average precision of objects {bounds}")
        for area, bounds in AREAS.items()
    ),
    *(
        _percent(f"AR{n}", f"mask AR {n}", f"average recall with {n} mask(s) per image and class")
        for n in (1, 10, 100)
    ),
    *(
        _percent(f"AR_{area}", f"mask AR {area}", f"average recall of objects {bounds}")
        for area, bounds in AREAS.items()
    ),
    MetricSpec("val_loss", "validation loss", "float", False, "the last level's loss of an image"),
)
# for the images that an evaluation draws
SAMPLE_SCORE = MetricSpec("image_loss", "loss", "float", False, "the validation loss of the image")
