"""Ranks that average their gradients give those of one process with the whole batch."""

import pytest
import torch
from dfine_outputs import LEAVES, gradients, random_outputs, rows_of

from visionloop.engine.batch import Normalizers
from visionloop.engine.distributed import join_world, sum_over_ranks
from visionloop.engine.testing.short_runs import on_ranks
from visionloop.tasks.detection.loss import DFineCriterion

SIZES = (5, 1, 0, 2, 0)
BOXES_PER_RANK = 8 / 2


def loss_of_rows(firsts, second_denoises=True):
    """{"losses", "gradients"} of rank r, which has the images firsts[r]:firsts[r + 1].

    The second rank may have no denoising queries.
    """
    world = join_world("cpu")
    outputs, targets = random_outputs(SIZES, seed=7)
    outputs, targets = rows_of(outputs, targets, slice(firsts[world.rank], firsts[world.rank + 1]))
    if world.rank == 1 and not second_denoises:
        skip = outputs.denoising_meta_values["dn_num_split"][0]
        for name in (*LEAVES[:3], "initial_reference_points"):
            setattr(outputs, name, getattr(outputs, name)[:, :, skip:])
        outputs.denoising_meta_values = None
    normalizers = Normalizers(
        {"boxes": BOXES_PER_RANK}, sum_over_ranks=lambda numbers: sum_over_ranks(world, numbers)
    )
    losses = DFineCriterion(4)(outputs, targets, normalizers)
    rank_gradients = gradients(outputs, losses["loss"])
    return {
        "losses": {k: v.item() for k, v in losses.items()},
        "gradients": {k: v.tolist() for k, v in rank_gradients.items()},
    }


# 2 ranks with 5 and 3 boxes, and with 8 and none at all
@pytest.mark.parametrize("firsts", [(0, 1, 5), (0, 4, 5)])
def test_two_ranks_give_the_loss_and_gradient_of_one(firsts):
    outputs, targets = random_outputs(SIZES, seed=7)
    whole = DFineCriterion(4)(outputs, targets)
    ranks = on_ranks(2, loss_of_rows, firsts, context="fork")
    for name, value in whole.items():
        assert sum(rank["losses"][name] for rank in ranks) / 2 == pytest.approx(
            value.item(), rel=1e-5
        ), name
    for name, gradient in gradients(outputs, whole["loss"]).items():
        rank_gradients = (
            torch.cat(
                [torch.tensor(rank["gradients"][name], dtype=torch.float64) for rank in ranks]
            )
            / 2
        )
        assert (rank_gradients - gradient).norm() <= 1e-5 * gradient.norm(), name


def test_a_rank_without_boxes_and_so_without_denoising_queries_takes_part():
    outputs, targets = random_outputs(SIZES, seed=7)
    whole = DFineCriterion(4)(outputs, targets)
    ranks = on_ranks(2, loss_of_rows, (0, 4, 5), False, context="fork")
    # the other rank's negatives alone are left: what they weigh in the mean is another matter
    for name in whole.keys() - {"loss", "loss_dn_vfl", "loss_dn_ddf"}:
        assert sum(rank["losses"][name] for rank in ranks) / 2 == pytest.approx(
            whole[name].item(), rel=1e-5
        ), name
    assert [name for name, value in ranks[1]["losses"].items() if value != 0] == [
        "loss",
        "loss_vfl",
        "loss_ddf",
    ]
