"""Confidence intervals of scores: bootstrap over images."""

from collections.abc import Sequence

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
