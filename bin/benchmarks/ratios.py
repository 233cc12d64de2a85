"""How many times one thing takes as long as another that was measured in turn with it, and how sure that is."""

import statistics

import numpy as np


def ratio_with_interval(own, other):
    """(median of own[i] / other[i], (low, high)): the 95 % interval by bootstrap over pairs.

    own, other: seconds, entry i of both from the same moment of a noisy machine.
    """
    ratios = [a / b for a, b in zip(own, other, strict=True)]
    generator = np.random.default_rng(0)
    medians = [np.median(generator.choice(ratios, len(ratios))) for _ in range(1000)]
    low, high = np.percentile(medians, [2.5, 97.5])
    return statistics.median(ratios), (float(low), float(high))
