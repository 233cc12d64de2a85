"""Scores of panoptic segmentation: names, formats and meanings. Imports no torch."""

from visionloop.engine.metric import MetricSpec

KINDS = {
    "pq": ("PQ", "panoptic quality: IoU of the matches over matches and half of the rest"),
    "sq": ("SQ", "segmentation quality: mean IoU of the matched segments"),
    "rq": ("RQ", "recognition quality: F1 of the segments, matched above IoU 0.5"),
}


def _percent(key: str, label: str, description: str) -> MetricSpec:
    return MetricSpec(key, label, "percent", True, f"{description}; mean over classes")


METRICS = (
    *(_percent(key, label, text) for key, (label, text) in KINDS.items()),
    *(
        _percent(f"{key}_{group}", f"{label} {group}", f"{label} of the classes of {group}")
        for group in ("things", "stuff")
        for key, (label, _) in KINDS.items()
    ),
    _percent("pq_at_half", "PQ at score 0.5", "PQ with --score 0.5"),
    MetricSpec("val_loss", "validation loss", "float", False, "the last level's loss of an image"),
)
# for the images that an evaluation draws
SAMPLE_SCORE = MetricSpec("image_pq", "PQ", "percent", True, "mean over the classes in the image")
