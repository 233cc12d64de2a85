"""Scores of semantic segmentation: names, formats and meanings. Imports no torch."""

from visionloop.engine.metric import MetricSpec

METRICS: tuple[MetricSpec, ...] = (
    MetricSpec(
        "miou",
        "mIoU",
        "percent",
        True,
        "intersection over union, mean over the classes in ground truth or predictions",
    ),
    MetricSpec(
        "pixel_accuracy",
        "pixel accuracy",
        "percent",
        True,
        "share of correct pixels among those that are not ignored",
    ),
    MetricSpec(
        "mean_class_accuracy",
        "mean class accuracy",
        "percent",
        True,
        "share of correct pixels of each class, mean over the classes",
    ),
    MetricSpec(
        "val_loss",
        "validation loss",
        "float",
        False,
        "the last level's loss of whole images, resized and padded to a square",
    ),
)
# for the images that an evaluation draws
SAMPLE_SCORE = MetricSpec(
    "image_miou",
    "mIoU",
    "percent",
    True,
    "mean over the classes in the ground truth of the image",
)


def level_metrics(levels: int) -> tuple[MetricSpec, ...]:
    """Return the MetricSpec of the mIoU of each level before the last, whose key is `miou`."""
    return tuple(
        MetricSpec(
            f"miou_level_{i}",
            f"mIoU before query block {i}",
            "percent",
            True,
            "the same score of an earlier level's prediction",
        )
        for i in range(levels)
    )
