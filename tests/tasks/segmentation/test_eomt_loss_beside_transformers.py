"""EoMT's criterion and that of transformers: equal at the same points, else in the mean."""

import pytest
import torch
from eomt_outputs import CLASSES, gradients, loss_of, random_outputs
from transformers import EomtConfig
from transformers.models.eomt.modeling_eomt import EomtLoss

from visionloop.tasks.segmentation.loss import EomtCriterion

POINTS = 30


def transformers_loss(outputs, points=POINTS):
    """Return the weighted loss and terms of transformers, for outputs with one level."""
    config = EomtConfig(num_labels=CLASSES, train_num_points=points)
    terms = EomtLoss(config, {})(
        outputs.mask_logits[:, 0],
        outputs.class_logits[:, 0],
        [maps.float() for maps in outputs.masks],
        outputs.labels,
    )
    names = {"class": "cross_entropy", "mask": "mask", "dice": "dice"}
    losses = {
        f"loss_{ours}": getattr(config, f"{ours}_weight") * terms[f"loss_{theirs}"]
        for ours, theirs in names.items()
    }
    return {"loss": sum(losses.values()), **losses}


@pytest.mark.parametrize("seed", range(6))
def test_one_image_and_level_with_points_of_their_own_equal_transformers(seed):
    outputs = random_outputs((1 + seed,), levels=1, queries=8, side=(20, 24), seed=seed)
    torch.manual_seed(seed)
    theirs = transformers_loss(outputs)
    torch.manual_seed(seed)
    ours = loss_of(EomtCriterion(CLASSES, points=POINTS, share_candidates=False), outputs)
    for name, value in theirs.items():
        assert ours[name].item() == pytest.approx(value.item(), rel=1e-6), name
    for own, other in zip(
        gradients(outputs, ours["loss"]), gradients(outputs, theirs["loss"]), strict=True
    ):
        assert (own - other).norm() <= 1e-6 * other.norm()


def test_shared_candidates_agree_with_transformers_in_the_mean():
    outputs = random_outputs((3, 1, 4), levels=1, queries=6, side=(20, 24), seed=3)
    torch.manual_seed(0)
    shared = EomtCriterion(CLASSES, points=POINTS)
    own = EomtCriterion(CLASSES, points=POINTS, share_candidates=False)
    with torch.no_grad():
        losses = (
            lambda: loss_of(shared, outputs),
            lambda: loss_of(own, outputs),
            lambda: transformers_loss(outputs),
        )
        samples = torch.tensor(
            [[[value.item() for value in loss().values()] for _ in range(200)] for loss in losses]
        ).double()
    error = (samples.var(1) / 200).sqrt()  # of the means, by loss and term
    for i in (0, 1):
        assert (
            (samples[i].mean(0) - samples[2].mean(0)).abs()
            <= 4 * (error[i] ** 2 + error[2] ** 2).sqrt()
        ).all()
    assert (error < 0.01 * samples.mean(1)).all()  # or the line above would say little
