"""Cross-entropy with hard or soft targets, label smoothing and class weights; mixup and CutMix.

The loss of transformers is not used: 5.23.0 turns soft targets into multi-label BCE silently.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F
from torchvision.transforms import v2

from visionloop.engine.batch import Normalizers
from visionloop.engine.errors import UserError


def classification_loss(
    logits: torch.Tensor,
    targets: torch.Tensor,
    normalizers: Normalizers,
    *,
    label_smoothing: float = 0.0,
    class_weights: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """Sum the cross-entropy of the samples in fp32 and divide it by the samples of the step.

    Args:
        logits: [B, C].
        targets: class ids int64 [B] or probabilities [B, C]; both are smoothed alike.
        normalizers: {"samples": samples of the step, averaged over ranks}.
        label_smoothing: share of each target that is spread over all classes.
        class_weights: [C]; the share of each class in a target is multiplied by its weight.
    """
    total = F.cross_entropy(
        logits.float(),
        targets,
        weight=class_weights,
        label_smoothing=label_smoothing,
        reduction="sum",
    )
    return {"loss": total / normalizers["samples"]}


def balanced_class_weights(labels: NDArray[np.int64], num_classes: int) -> torch.Tensor:
    """Compute N / (K * N_c) for each class: rare classes weigh more, the mean over samples is 1.

    N_c counts the samples of class c and K the classes that have any; a class without samples has
    weight 0.

    Args:
        labels: int64 [N].

    Returns:
        float32 [num_classes].
    """
    counts = np.bincount(labels, minlength=num_classes)
    num_present = np.count_nonzero(counts)
    weights = np.divide(
        len(labels), num_present * counts, out=np.zeros(num_classes), where=counts > 0
    )
    return torch.tensor(weights, dtype=torch.float32)


class Mixing:
    """Mix the samples of a micro-batch by mixup (arXiv:1710.09412) or CutMix (arXiv:1905.04899).

    It runs on the device, after normalization. Randomness comes from torch's main CPU generator
    alone, so nothing is read back from the device.

    Args:
        mixup: alpha of mixup; 0 turns it off.
        cutmix: alpha of CutMix; 0 turns it off.
        prob: probability that a micro-batch is mixed.
        switch: probability of CutMix instead of mixup when both are on.
        num_classes: number of classes C.
    """

    def __init__(
        self, *, mixup: float, cutmix: float, prob: float, switch: float, num_classes: int
    ) -> None:
        self.mixup = v2.MixUp(alpha=mixup, num_classes=num_classes) if mixup else None
        self.cutmix = v2.CutMix(alpha=cutmix, num_classes=num_classes) if cutmix else None
        self.prob, self.switch = prob, switch

    @property
    def enabled(self) -> bool:
        """Return True when mixup or CutMix is on."""
        return self.mixup is not None or self.cutmix is not None

    def __call__(
        self, pixel_values: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mix a micro-batch.

        Args:
            pixel_values: float [B, 3, H, W].
            labels: int64 [B].

        Returns:
            (pixel_values, targets); targets are the ids [B] if nothing was mixed, else
            probabilities [B, C].

        Raises:
            UserError: mixing is on and the micro-batch has a single sample.
        """
        if not self.enabled:
            return pixel_values, labels
        if len(labels) < 2:
            raise UserError(
                "--micro-batch: mixup and CutMix need at least 2 samples in every micro-batch",
                field="micro_batch",
            )
        mix_draw, switch_draw = torch.rand(2).tolist()
        if mix_draw >= self.prob:
            return pixel_values, labels
        use_cutmix = self.mixup is None or (self.cutmix is not None and switch_draw < self.switch)
        mix = self.cutmix if use_cutmix else self.mixup
        assert mix is not None, "one of the two is on"
        mixed, targets = mix(pixel_values, labels)
        return mixed, targets


def mixing_enabled_at(step: int, steps: int, off_share: float) -> bool:
    """Return True unless a step is in the last share `off_share` of the run's steps."""
    return step < (1 - off_share) * steps
