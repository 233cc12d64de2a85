"""The loss, mixup and CutMix."""

import pytest
import torch
from torch.nn import functional as F

from visionloop.engine.batch import Normalizers
from visionloop.engine.errors import UserError
from visionloop.tasks.classification.loss import (
    Mixing,
    balanced_class_weights,
    classification_loss,
    mixing_enabled_at,
)


def logits_and_labels(samples=6, classes=4):
    torch.manual_seed(0)
    return torch.randn(samples, classes), torch.randint(0, classes, (samples,))


def mixing(**changes):
    return Mixing(
        **{"mixup": 0.8, "cutmix": 1.0, "prob": 1.0, "switch": 0.5, "num_classes": 4} | changes
    )


def test_soft_labels_give_soft_cross_entropy_and_not_bce():
    logits, _ = logits_and_labels()
    soft = torch.rand(6, 4).softmax(1)
    expected = -(soft * logits.log_softmax(1)).sum() / 6
    assert torch.allclose(
        classification_loss(logits, soft, Normalizers({"samples": 6.0}))["loss"], expected
    )


def test_hard_labels_are_one_hot_soft_labels():
    logits, labels = logits_and_labels()
    hard = classification_loss(logits, labels, Normalizers({"samples": 6.0}), label_smoothing=0.1)[
        "loss"
    ]
    soft = classification_loss(
        logits, F.one_hot(labels, 4).float(), Normalizers({"samples": 6.0}), label_smoothing=0.1
    )["loss"]
    assert torch.allclose(hard, soft)


def test_smoothing_before_mixing_equals_smoothing_after():
    logits, labels = logits_and_labels()
    share, other = 0.3, labels.roll(1)
    mixed = share * F.one_hot(labels, 4) + (1 - share) * F.one_hot(other, 4)
    after = classification_loss(logits, mixed, Normalizers({"samples": 6.0}), label_smoothing=0.1)[
        "loss"
    ]
    first, second = (
        classification_loss(logits, ids, Normalizers({"samples": 6.0}), label_smoothing=0.1)["loss"]
        for ids in (labels, other)
    )
    before = share * first + (1 - share) * second
    assert torch.allclose(after, before)


def test_micro_batches_add_up_to_the_mean_over_the_step():
    logits, labels = logits_and_labels(7)
    normalizers = Normalizers({"samples": 7.0})
    parts = [
        classification_loss(logits[a:b], labels[a:b], normalizers)["loss"]
        for a, b in ((0, 3), (3, 7))
    ]
    assert torch.allclose(sum(parts), F.cross_entropy(logits, labels))


def test_the_loss_is_fp32_whatever_autocast_did():
    logits, labels = logits_and_labels()
    loss = classification_loss(logits.bfloat16(), labels, Normalizers({"samples": 6.0}))["loss"]
    assert loss.dtype == torch.float32
    assert torch.allclose(loss, F.cross_entropy(logits.bfloat16().float(), labels))


def test_balanced_weights_average_to_one_over_the_samples():
    labels = torch.tensor([0] * 8 + [1] * 2 + [3] * 2).numpy()
    weights = balanced_class_weights(labels, 4)
    assert weights[2] == 0
    assert weights[1] == weights[3] == 4 * weights[0]
    assert torch.allclose(weights[torch.tensor(labels)].mean(), torch.tensor(1.0))


def test_class_weights_multiply_each_class_s_share():
    logits, labels = logits_and_labels()
    weights = torch.tensor([1.0, 2.0, 0.5, 3.0])
    loss = classification_loss(
        logits, labels, Normalizers({"samples": 6.0}), class_weights=weights
    )["loss"]
    assert torch.allclose(
        loss, (weights[labels] * F.cross_entropy(logits, labels, reduction="none")).sum() / 6
    )


def test_mixed_targets_are_probabilities_and_follow_the_pixels():
    torch.manual_seed(3)
    # each image is constant and equal to its label, so the mean of a mixed image is the mean of
    # its target
    labels = torch.tensor([0, 1, 2, 3])
    pixels = labels.float().view(4, 1, 1, 1).expand(4, 3, 8, 8).contiguous()
    for kind in ({"cutmix": 0.0}, {"mixup": 0.0}):
        mixed, targets = mixing(**kind)(pixels, labels)
        assert torch.allclose(targets.sum(1), torch.ones(4))
        assert torch.allclose(mixed.mean(dim=(1, 2, 3)), targets @ torch.arange(4.0), atol=1e-5)


def test_the_same_noise_gives_the_same_mixing():
    pixels, labels = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
    results = []
    for _ in range(2):
        torch.manual_seed(11)
        results.append(mixing()(pixels, labels))
    assert all(torch.equal(first, second) for first, second in zip(*results, strict=True))


def test_mixing_one_sample_is_refused():
    with pytest.raises(UserError, match="at least 2 samples"):
        mixing()(torch.rand(1, 3, 8, 8), torch.tensor([0]))


def test_mixing_off_leaves_ids_alone():
    pixels, labels = torch.rand(1, 3, 8, 8), torch.tensor([2])
    assert mixing(mixup=0.0, cutmix=0.0)(pixels, labels) == (pixels, labels)


def test_mixing_ends_before_the_run_does():
    assert [mixing_enabled_at(step, 10, 0.2) for step in (0, 7, 8, 9)] == [True, True, False, False]
