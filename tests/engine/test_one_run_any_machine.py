"""Samples, order, normalization and scores are equal on any number of processes."""

import math
import os
from dataclasses import replace

import pytest
import torch
import torch.utils.tensorboard
from toy_task import ToyConfig, ToyMetric, ToyTask

from visionloop.engine.distributed import join_world
from visionloop.engine.testing.short_runs import (
    CONFIG,
    first_step,
    on_ranks,
    score,
    shared_folder,
    train_steps,
)


def quiet_toy():
    return ToyTask(ToyConfig(dropout=0.0, batch_norm=False))


def noisy_toy():
    return ToyTask(ToyConfig(dropout=0.5))


UNEVEN = replace(CONFIG, batch_size=13, micro_batch=7)  # 6 + 7 samples on two ranks


def relative_difference(first, second):
    a, b = torch.tensor(first["gradient"]), torch.tensor(second["gradient"])
    return float((a - b).norm() / a.norm())


def ids_of_every_step(processes, micro_batch):
    """Sample ids of each of 5 steps, over all ranks."""
    parts = (
        [note_ids(micro_batch)]
        if processes == 1
        else on_ranks(processes, note_ids, micro_batch, context="fork")
    )
    return [sorted(index for part in parts for index in part[step]) for step in range(5)]


def note_ids(micro_batch):
    task, ids = quiet_toy(), []
    count_normalizers = task.count_normalizers

    def count_and_note(micro_batches):
        ids.append([index for batch in micro_batches for index in batch["sample_ids"].tolist()])
        return count_normalizers(micro_batches)

    task.count_normalizers = count_and_note
    with shared_folder(join_world("cpu")) as output:
        train_steps(
            task,
            output,
            config=replace(
                CONFIG, steps=5, batch_size=13, micro_batch=micro_batch, eval_every=0, save_every=0
            ),
        )
    return ids


def test_every_step_sees_the_same_samples_on_one_two_and_three_processes_and_with_accumulation():
    alone = ids_of_every_step(1, 13)
    assert ids_of_every_step(1, 3) == ids_of_every_step(2, 7) == ids_of_every_step(3, 2) == alone
    assert all(len(ids) == 13 for ids in alone)


def test_two_ranks_with_uneven_micro_batches_give_the_gradient_of_one():
    alone = first_step(quiet_toy, replace(UNEVEN, micro_batch=13))
    for rank in on_ranks(2, first_step, quiet_toy, UNEVEN, context="fork"):
        assert relative_difference(alone, rank) < 1e-5
        assert rank["loss"] == pytest.approx(alone["loss"], rel=1e-5)


def test_accumulation_gives_the_gradient_of_the_whole_batch():
    alone = first_step(quiet_toy, replace(UNEVEN, micro_batch=13))
    for micro_batch in (1, 3, 5):
        assert (
            relative_difference(
                alone, first_step(quiet_toy, replace(UNEVEN, micro_batch=micro_batch))
            )
            < 1e-5
        )


def test_the_noise_is_the_same_wherever_the_micro_batches_are_equal():
    micro_batches_of_two = replace(CONFIG, micro_batch=2)  # 8 = 4 x 2 = 2 ranks x 2 x 2
    alone = first_step(noisy_toy, micro_batches_of_two)
    for rank in on_ranks(2, first_step, noisy_toy, micro_batches_of_two, context="fork"):
        assert relative_difference(alone, rank) < 1e-5
    # and it is noise: other micro-batches draw another one
    assert relative_difference(alone, first_step(noisy_toy, CONFIG)) > 1e-2


class MainRankMetric(ToyMetric):
    """Refuses to merge and to compute anywhere else."""

    def merge(self, states):
        assert os.environ["RANK"] == "0" and len(states) == 2
        super().merge(states)

    def compute(self, picks=None):
        assert os.environ["RANK"] == "0"
        return super().compute(picks)


def scores_of_a_run():
    task = quiet_toy()
    task.build_metric = MainRankMetric
    with shared_folder(join_world("cpu")) as output:
        return train_steps(task, output).scores


def test_scores_are_computed_on_the_main_rank_alone_and_known_to_all():
    first, second = on_ranks(2, scores_of_a_run, context="fork")
    assert first == second and math.isfinite(first["val_loss"])


def test_evaluation_gives_the_same_number_on_one_two_and_three_processes():
    alone = score(quiet_toy)
    for processes in (2, 3):
        assert on_ranks(processes, score, quiet_toy, context="fork") == [alone] * processes
