"""EoMT's criterion beside the library's: equal where both draw the same points, and in the mean where not."""

import pytest
import torch
from eomt_outputs import CLASSES, gradients, loss_of, random_answers
from transformers import EomtConfig
from transformers.models.eomt.modeling_eomt import EomtLoss

from visionloop.tasks.segmentation.loss import EomtCriterion

POINTS = 30


def library_loss(answers, points=POINTS):
    """{"loss", "loss_class", "loss_mask", "loss_dice"} of answers with one level, weighted as the library does."""
    config = EomtConfig(num_labels=CLASSES, train_num_points=points)
    found = EomtLoss(config, {})(
        answers.mask_logits[:, 0], answers.class_logits[:, 0], [maps.float() for maps in answers.masks], answers.labels
    )  # fmt: skip
    names = {"class": "cross_entropy", "mask": "mask", "dice": "dice"}
    losses = {
        f"loss_{ours}": getattr(config, f"{ours}_weight") * found[f"loss_{theirs}"]
        for ours, theirs in names.items()
    }
    return {"loss": sum(losses.values()), **losses}


@pytest.mark.parametrize("seed", range(6))
def test_one_image_and_level_with_points_of_their_own_equal_the_library(seed):
    answers = random_answers((1 + seed,), levels=1, queries=8, side=(20, 24), seed=seed)
    torch.manual_seed(seed)
    theirs = library_loss(answers)
    torch.manual_seed(seed)
    ours = loss_of(EomtCriterion(CLASSES, points=POINTS, share_candidates=False), answers)
    for name, value in theirs.items():
        assert ours[name].item() == pytest.approx(value.item(), rel=1e-6), name
    for own, other in zip(
        gradients(answers, ours["loss"]), gradients(answers, theirs["loss"]), strict=True
    ):
        assert (own - other).norm() <= 1e-6 * other.norm()


def test_shared_candidates_agree_with_the_library_in_the_mean():
    answers = random_answers((3, 1, 4), levels=1, queries=6, side=(20, 24), seed=3)
    torch.manual_seed(0)
    shared = EomtCriterion(CLASSES, points=POINTS)
    own = EomtCriterion(CLASSES, points=POINTS, share_candidates=False)
    with torch.no_grad():
        ways = (
            lambda: loss_of(shared, answers),
            lambda: loss_of(own, answers),
            lambda: library_loss(answers),
        )
        found = torch.tensor(
            [[[value.item() for value in way().values()] for _ in range(200)] for way in ways]
        ).double()
    error = (found.var(1) / 200).sqrt()  # of the means, by way and term
    for i in (0, 1):
        assert (
            (found[i].mean(0) - found[2].mean(0)).abs()
            <= 4 * (error[i] ** 2 + error[2] ** 2).sqrt()
        ).all()
    assert (error < 0.01 * found.mean(1)).all()  # or the line above would say little
