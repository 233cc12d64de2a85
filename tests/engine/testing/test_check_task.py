"""`check_task` accepts a task that keeps the invariants and names the one that is broken."""

import pytest
import torch
from toy_task import ToyConfig, ToyTask, make_quiet_toy

from visionloop.engine.testing.check_task import accumulation, batches, check_task, resume


class MeanLossToy(ToyTask):
    """Divides by its own batch, not by the normalizer of the step."""

    def loss(self, model, batch, normalizers):
        return super().loss(model, batch, {"samples": float(len(batch))})


class ForgetfulToy(ToyTask):
    """Draws from a generator of its own, which no checkpoint holds."""

    generator = torch.Generator().manual_seed(0)

    def loss(self, model, batch, normalizers):
        losses = super().loss(model, batch, normalizers)
        return {"loss": losses["loss"] * (1 + 0.1 * torch.rand((), generator=self.generator))}


class FloatToy(ToyTask):
    def collate(self, samples, step, offset):
        return super().collate(samples, step, offset).map_tensors(torch.Tensor.float)


@pytest.mark.slow
def test_a_task_that_keeps_the_invariants_passes_every_check():
    assert check_task(make_quiet_toy) == [
        "batches",
        "resume",
        "accumulation",
        "ranks",
        "grad_checkpointing",
        "sharding",
        "empty_targets",
        "overfit",
        "export",
    ]


def test_a_loss_that_is_a_mean_of_its_own_is_caught(tmp_path):
    with pytest.raises(AssertionError, match="accumulation"):
        accumulation(lambda: MeanLossToy(ToyConfig(dropout=0.0)), tmp_path)


def test_noise_outside_the_engines_seeds_is_caught(tmp_path):
    with pytest.raises(AssertionError, match="resume: after a stop at step"):
        resume(lambda: ForgetfulToy(ToyConfig(dropout=0.0)), tmp_path)


def test_images_that_are_not_uint8_in_the_batch_are_caught(tmp_path):
    with pytest.raises(AssertionError, match="batches: pixel_values must be uint8"):
        batches(lambda: FloatToy(ToyConfig(dropout=0.0)), tmp_path)
