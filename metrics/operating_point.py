"""Choose the score threshold of a class from its matched predictions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from visionloop.metrics.rows import Array

GOALS = ("f1", "precision", "recall")


@dataclass(frozen=True)
class ThresholdRule:
    """Requirement of a threshold.

    Attributes:
        goal: "f1": the largest F1; "precision": the largest recall with at least this precision;
            "recall": the largest precision with at least this recall.
        required: the smallest precision or recall, in 0..1; 0 for "f1".
    """

    goal: str
    required: float = 0.0

    @classmethod
    def parse(cls, text: str) -> ThresholdRule:
        """Read "f1", "precision=0.9" or "recall=0.8".

        Raises:
            ValueError: for any other text, with what was expected.
        """
        goal, _, number = text.partition("=")
        if text == "f1":
            return cls(text)
        try:
            required = float(number)
        except ValueError:
            required = 0.0
        if goal not in GOALS[1:] or not 0 < required <= 1:
            raise ValueError(
                f"{text}: expected f1, precision=P or recall=R with a number above 0 and up to 1"
            )
        return cls(goal, required)

    def __str__(self) -> str:
        return self.goal if self.goal == "f1" else f"{self.goal}={self.required:g}"


@dataclass(frozen=True)
class OperatingPoint:
    """The score threshold of a class, and what its predictions from there on reach.

    Attributes:
        threshold: a prediction counts from this score on; None: no threshold meets the rule.
        precision: share of the predictions with an object, nan without a threshold.
        recall: share of the objects with a prediction, nan without a threshold.
        f1: the harmonic mean of both, nan without a threshold.
        objects: of the class, those that are not crowd.
    """

    threshold: float | None
    precision: float
    recall: float
    f1: float
    objects: int


def choose_threshold(
    scores: Array, is_hit: Array, objects: int, rule: ThresholdRule
) -> OperatingPoint:
    """Choose the best threshold among the scores of the predictions of one class.

    Greedy matching by falling score gives the predictions from any score on the same matches as it
    gives them among all, so that one matching serves every threshold. Predictions of equal score
    are kept or left out together. Of equally good thresholds the highest is taken. A threshold
    without a match is none.

    Args:
        scores: float64 [D], the highest first, without ignored predictions.
        is_hit: bool [D], whether a prediction has an object.
        objects: number of objects.
        rule: what to reach.
    """
    ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)[: len(scores)])
    hits = np.cumsum(is_hit)[ends]
    ends, hits = ends[hits > 0], hits[hits > 0]
    nothing = OperatingPoint(None, float("nan"), float("nan"), float("nan"), objects)
    if not len(hits):
        return nothing
    precision, recall = hits / (ends + 1), hits / objects
    f1 = 2 * hits / (ends + 1 + objects)
    met, value = {
        "f1": (f1 >= 0, f1),
        "precision": (precision >= rule.required, recall),
        "recall": (recall >= rule.required, precision),
    }[rule.goal]
    if not met.any():
        return nothing
    best = int(np.where(met, value, -1).argmax())  # the first, at the highest score
    return OperatingPoint(
        float(scores[ends[best]]),
        float(precision[best]),
        float(recall[best]),
        float(f1[best]),
        objects,
    )
