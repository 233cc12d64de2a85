"""Cross-entropy with hard or soft targets, smoothing and class weights.

The library's own loss is never used: soft targets turn it into multi-label BCE without a word.
"""

import numpy as np
import torch
from torch.nn import functional as F
from torchvision.transforms import v2

from visionloop.engine.errors import UserError


def classification_loss(logits, targets, count, *, label_smoothing=0.0, class_weights=None):
    """Sum of the samples' cross-entropies over `count`, in fp32.

    logits: [B, C]; targets: class ids int64 [B] or probabilities [B, C], smoothed alike;
    class_weights: [C] or None, each class's share of a target is multiplied with its weight; count:
    samples of the step, averaged over ranks.
    """
    total = F.cross_entropy(
        logits.float(),
        targets,
        weight=class_weights,
        label_smoothing=label_smoothing,
        reduction="sum",
    )
    return {"loss": total / count["samples"]}


def balanced_class_weights(labels, num_classes):
    """n / (k * n_c) per class, float32 [C]: rare classes count more, the mean over the samples is 1. Absent classes weigh 0."""
    counts = np.bincount(labels, minlength=num_classes)
    present = np.count_nonzero(counts)
    weights = np.divide(len(labels), present * counts, out=np.zeros(num_classes), where=counts > 0)
    return torch.tensor(weights, dtype=torch.float32)


# Mixup (arXiv:1710.09412) and cutmix (arXiv:1905.04899) on the device, after normalising.


class Mixing:
    """Mixes the samples of a micro-batch with each other. Chance comes from torch's main CPU generator alone, so nothing is read back.

    mixup, cutmix: alpha, 0 is off; prob: share of micro-batches that are mixed; switch: share of
    cutmix where both are on.
    """

    def __init__(self, *, mixup, cutmix, prob, switch, num_classes):
        self.mixup = v2.MixUp(alpha=mixup, num_classes=num_classes) if mixup else None
        self.cutmix = v2.CutMix(alpha=cutmix, num_classes=num_classes) if cutmix else None
        self.prob, self.switch = prob, switch

    @property
    def on(self):
        return self.mixup is not None or self.cutmix is not None

    def __call__(self, pixels, labels):
        """pixels: float [B, 3, H, W]; labels: int64 [B] -> (pixels, targets): ids [B] where not mixed, else probabilities [B, C]."""
        if not self.on:
            return pixels, labels
        if len(labels) < 2:
            raise UserError(
                "--micro-batch: mixup and cutmix need at least 2 samples in every micro-batch",
                field="micro_batch",
            )
        mix_at, switch_at = torch.rand(2).tolist()
        if mix_at >= self.prob:
            return pixels, labels
        if self.mixup is None or (self.cutmix is not None and switch_at < self.switch):
            return self.cutmix(pixels, labels)
        return self.mixup(pixels, labels)


def mixes_at(step, steps, off):
    """True while mixing is on: not in the last share `off` of the run. A pure function of the step."""
    return step < (1 - off) * steps
