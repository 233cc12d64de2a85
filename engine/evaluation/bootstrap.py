"""How sure a score is: bootstrap over images."""

import numpy as np

FEW_IMAGES = 1000  # below, a score is shown with its interval


def score_intervals(metric, *, draws=500, seed=0, confidence=0.95):
    """{metric key: (low, high)}: percentiles of the scores of `draws` samples of the images, with replacement.

    metric: see engine/metric.py; the same images and seed give the same interval.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    images = len(metric)
    drawn = [metric.compute(generator.integers(0, images, images)) for _ in range(draws)]
    tail = 50 * (1 - confidence)
    intervals = {}
    for key in metric.compute():
        # a draw may lack a score, e.g. of a class that is in none of its images
        values = [scores[key] for scores in drawn if key in scores and np.isfinite(scores[key])]
        if values:
            low, high = np.percentile(values, [tail, 100 - tail])
            intervals[key] = (float(low), float(high))
    return intervals
