"""Scores of image classification: names, formats and meanings. Imports no torch."""

from visionloop.engine.metric import MetricSpec

METRICS = (
    MetricSpec("accuracy", "accuracy", "percent", True, "share of images whose top class is right"),
    MetricSpec(
        "accuracy_top5",
        "top-5 accuracy",
        "percent",
        True,
        "share of images whose class is among the five highest scores",
    ),
    MetricSpec(
        "mean_class_accuracy",
        "mean class accuracy",
        "percent",
        True,
        "accuracy of each class, averaged over classes",
    ),
    MetricSpec(
        "val_loss",
        "validation loss",
        "float",
        False,
        "plain cross-entropy, without label smoothing, class weights and mixing",
    ),
)
# for the images that an evaluation draws
SAMPLE_SCORE = MetricSpec(
    "cross_entropy",
    "cross-entropy",
    "float",
    False,
    "of the ground truth, without label smoothing",
)
