"""What the sums of D-FINE's loss are divided by, over micro-batches and ranks."""

from dataclasses import dataclass
from math import sqrt


@dataclass(frozen=True)
class Shares:
    """Numbers on the host. Three divide a sum, the last four multiply each query's divergence.

    With W ranks that average their gradients, the terms of the union are share * sum / |U|: the sum is this rank's, |U| that of the
    micro-batch over all ranks, and share = W * (boxes of the micro-batch) / (boxes of the step) = boxes of the micro-batch / count.
    """

    boxes: float  # of the step
    denoised: float  # the same, times the groups of denoising queries
    union: float  # |U| / share
    matched: float
    unmatched: float
    dn_matched: float
    dn_unmatched: float

    @classmethod
    def measure(cls, answers, truth, denoised, num_union, count, sum_over_ranks):
        """From this batch alone where there is no count; otherwise all ranks take part, once, boxes or no boxes."""
        num_pictures, num_denoising = len(truth.sizes), answers.num_denoising
        numbers = [len(truth), num_union, num_pictures * answers.num_queries - num_union]
        numbers += [len(denoised), num_pictures * num_denoising - len(denoised)]
        if count is not None and sum_over_ranks is not None:
            numbers = sum_over_ranks(numbers)
        num_boxes, matched, unmatched, dn_matched, dn_unmatched = numbers
        divisor = max(1, num_boxes) if count is None else count["boxes"]
        share = max(1, num_boxes) / divisor
        # DDF = (P sqrt(m) + N sqrt(r)) / (sqrt(m) + sqrt(r)), P and N means over entries: four sides to a query
        root, other = sqrt(matched), sqrt(unmatched)
        pulls = (root, other, root, other)
        sums = (matched, unmatched, dn_matched, dn_unmatched)
        each = [share * pull / (root + other) / (4 * number) if number else 0.0 for pull, number in zip(pulls, sums, strict=True)]
        return cls(divisor, divisor * denoised.groups, max(1, matched) / share, *each)
