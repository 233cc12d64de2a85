"""Cross-entropy with hard or soft targets, smoothing and class weights.

The library's own loss is never used: soft targets turn it into multi-label BCE without a word.
"""

import numpy as np
import torch
from torch.nn import functional as F


def classification_loss(logits, targets, count, *, label_smoothing=0.0, class_weights=None):
    """Sum of the samples' cross-entropies over `count`, in fp32.

    logits: [B, C]; targets: class ids int64 [B] or probabilities [B, C], smoothed alike; class_weights: [C] or None, each class's
    share of a target is multiplied with its weight; count: samples of the step, averaged over ranks.
    """
    total = F.cross_entropy(logits.float(), targets, weight=class_weights, label_smoothing=label_smoothing, reduction="sum")
    return {"loss": total / count["samples"]}


def balanced_class_weights(labels, num_classes):
    """n / (k * n_c) per class, float32 [C]: rare classes count more, the mean over the samples is 1. Absent classes weigh 0."""
    counts = np.bincount(labels, minlength=num_classes)
    present = np.count_nonzero(counts)
    weights = np.divide(len(labels), present * counts, out=np.zeros(num_classes), where=counts > 0)
    return torch.tensor(weights, dtype=torch.float32)
