"""Confidence intervals of scores, and of the difference of two models: bootstrap over images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from visionloop.engine.metric import Metric

FEW_IMAGES = 1000  # below this number, scores are printed with their interval


def score_intervals(
    metric: Metric, *, draws: int = 500, seed: int = 0, confidence: float = 0.95
) -> dict[str, tuple[float, float]]:
    """Return {metric key: (low, high)}, percentiles of the scores of resampled images.

    The same images and seed give the same interval.

    Args:
        metric: the evidence of all images.
        draws: number of samples of the images, each as large as the whole, with replacement.
        seed: of the draws.
        confidence: the share of the draws between low and high.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    num_images = len(metric)
    samples = [metric.compute(generator.integers(0, num_images, num_images)) for _ in range(draws)]
    intervals = {}
    for key in metric.compute():
        # a draw may lack a score, e.g. of a class that is in none of its images
        values = [scores[key] for scores in samples if key in scores and np.isfinite(scores[key])]
        if values:
            intervals[key] = percentile_interval(values, confidence)
    return intervals


def percentile_interval(values: Sequence[float], confidence: float) -> tuple[float, float]:
    """Return the bounds between which a share `confidence` of the values lies; nan without any."""
    if not values:
        return np.nan, np.nan
    tail = 50 * (1 - confidence)
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)


@dataclass(frozen=True)
class PairedDifference:
    """The difference of a score of two models on the same images.

    Attributes:
        scores: of the first and of the second model.
        difference: the first minus the second.
        low, high: confidence interval of the difference, nan where no draw has the score.
        images: number of images.
    """

    scores: tuple[float, float]
    difference: float
    low: float
    high: float
    images: int


def paired_difference(
    metric_a: Metric,
    metric_b: Metric,
    key: str,
    *,
    positions_b: Sequence[int] | None = None,
    draws: int = 500,
    seed: int = 0,
    confidence: float = 0.95,
    advance: Callable[[], object] | None = None,
) -> PairedDifference:
    """Compare a score of two models by a paired bootstrap: each draw has the same images for both.

    Images that are hard for both models move both scores, so the interval is much narrower than the
    intervals of the scores suggest.

    Args:
        metric_a, metric_b: evidence of the same images.
        key: the score.
        positions_b: positions in `metric_b` of the images of `metric_a`, in its order; None: the
            same positions.
        draws: number of samples of the images, each as large as the whole, with replacement.
        seed: of the draws.
        confidence: the share of the draws between low and high.
        advance: called after each draw.
    """
    num_images = len(metric_a)
    order_b = np.arange(num_images) if positions_b is None else np.asarray(positions_b)
    if num_images != len(metric_b) or not np.array_equal(np.sort(order_b), np.arange(num_images)):
        raise ValueError(f"{num_images} and {len(metric_b)} images: expected the same images")
    scores = metric_a.compute()[key], metric_b.compute()[key]
    generator = np.random.Generator(np.random.PCG64(seed))
    differences = []
    for _ in range(draws):
        picks = generator.integers(0, num_images, num_images)
        # a draw may lack the score, see `score_intervals`
        score_a, score_b = (
            metric.compute(chosen).get(key, np.nan)
            for metric, chosen in ((metric_a, picks), (metric_b, order_b[picks]))
        )
        if np.isfinite(score_a) and np.isfinite(score_b):
            differences.append(score_a - score_b)
        if advance is not None:
            advance()
    low, high = percentile_interval(differences, confidence)
    return PairedDifference(scores, scores[0] - scores[1], low, high, num_images)
