"""The losses against arithmetic by hand, and their sums over micro-batches."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve

from visionloop.engine.batch import Normalizers
from visionloop.tasks.super_resolution.loss import (
    SuperResolutionCriterion,
    downscale,
    high_frequencies,
)


def some_outputs(batch=2, height=12, width=16, scale=2, seed=0):
    """(outputs with a gradient, true images)."""
    generator = torch.Generator().manual_seed(seed)
    sr, hr = (
        torch.rand(batch, 3, scale * height, scale * width, generator=generator) for _ in range(2)
    )
    aux = torch.rand(batch, 3, height, width, generator=generator)
    return {"sr": sr.requires_grad_(), "aux": aux.requires_grad_()}, hr


def gauss():
    """5 x 5, sigma 1, sum 1, by the formula."""
    kernel = np.array(
        [[math.exp(-(y * y + x * x) / 2) for x in range(-2, 3)] for y in range(-2, 3)]
    )
    return kernel / kernel.sum()


def test_l1_is_the_mean_over_pixels_and_channels():
    outputs, hr = some_outputs()
    losses = SuperResolutionCriterion()(outputs, hr)
    assert losses.keys() == {"loss", "loss_pixel"}
    assert losses["loss"].item() == pytest.approx(
        (outputs["sr"] - hr).abs().mean().item(), rel=1e-6
    )
    outputs["sr"] = hr + 0.25
    assert SuperResolutionCriterion()(outputs, hr)["loss"].item() == pytest.approx(0.25, rel=1e-6)


@pytest.mark.parametrize("eps", [1e-3, 1e-9**0.5])
def test_charbonnier_is_the_root_of_square_and_eps_square(eps):
    outputs, hr = some_outputs()
    criterion = SuperResolutionCriterion("charbonnier", charbonnier_eps=eps)
    expected = ((outputs["sr"] - hr).double().square() + eps**2).sqrt().mean().item()
    assert criterion(outputs, hr)["loss_pixel"].item() == pytest.approx(expected, rel=1e-6)
    same = {"sr": hr.clone().requires_grad_(), "aux": None}
    loss = criterion(same, hr)["loss"]
    loss.backward()
    assert loss.item() == pytest.approx(eps, rel=1e-5) and not same["sr"].grad.any()


def test_charbonnier_without_an_eps_is_the_authors():
    assert SuperResolutionCriterion("charbonnier").charbonnier_eps ** 2 == pytest.approx(1e-9)


def test_terms_are_unweighted_and_the_loss_is_their_weighted_sum():
    outputs, hr = some_outputs()
    losses = SuperResolutionCriterion(aux_weight=0.1, frequency_weight=0.05, scale=2)(outputs, hr)
    assert losses.keys() == {"loss", "loss_pixel", "loss_aux", "loss_frequency"}
    assert losses["loss_aux"].item() == pytest.approx(
        (outputs["aux"] - downscale(hr, 2)).abs().mean().item(), rel=1e-5
    )
    weighted = losses["loss_pixel"] + 0.1 * losses["loss_aux"] + 0.05 * losses["loss_frequency"]
    assert losses["loss"].item() == pytest.approx(weighted.item(), rel=1e-6)
    losses["loss"].backward()
    assert outputs["aux"].grad.any() and outputs["sr"].grad.any()


def test_the_frequency_term_is_the_difference_of_what_a_gaussian_removes():
    outputs, hr = some_outputs()
    high = []
    for image in (outputs["sr"].detach()[0, 1], hr[0, 1]):
        image = image.double().numpy()
        high.append(image - convolve(image, gauss(), mode="mirror"))
    ours = high_frequencies(outputs["sr"].detach() - hr)[0, 1]
    inner = (slice(2, -2), slice(2, -2))  # at the edge a filter needs a guess
    np.testing.assert_allclose(ours[inner], (high[0] - high[1])[inner], atol=1e-6)
    losses = SuperResolutionCriterion(frequency_weight=1.0)(outputs, hr)
    assert losses["loss_frequency"].item() == pytest.approx(
        high_frequencies(outputs["sr"] - hr).abs().mean().item(), rel=1e-5
    )


def test_an_even_difference_has_no_high_frequencies_inside():
    even = high_frequencies(torch.full((1, 3, 9, 9), 0.5))
    assert even[..., 2:-2, 2:-2].abs().max() < 1e-6 and even[..., 0, 0].min() > 0.1


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_target_of_the_auxiliary_image_is_a_smooth_image_at_the_inputs_size(scale):
    ramp = torch.linspace(0, 1, 12 * scale).expand(1, 3, 8 * scale, -1)
    small = downscale(ramp, scale)
    assert small.shape == (1, 3, 8, 12)
    middles = (
        ramp[0, 0, 0].reshape(12, scale).mean(1)
    )  # a pixel of the input covers `scale` pixels of the image
    torch.testing.assert_close(small[0, 0, 0, 3:-3], middles[3:-3], atol=1e-5, rtol=0)
    board = (torch.arange(8 * scale)[:, None] + torch.arange(12 * scale)) % 2
    assert (
        downscale(board.float().expand(1, 3, -1, -1), scale) - 0.5
    ).abs().max() < 0.2  # antialiased: gray, not one of the colors


@pytest.mark.parametrize("kind", ["l1", "charbonnier"])
def test_micro_batches_of_one_step_add_up_to_the_whole_batch(kind):
    criterion = SuperResolutionCriterion(kind, aux_weight=0.1, frequency_weight=0.05, scale=2)
    outputs, hr = some_outputs(batch=5)
    whole = criterion(outputs, hr)
    whole["loss"].backward()
    gradients = {name: tensor.grad.clone() for name, tensor in outputs.items()}
    for tensor in outputs.values():
        tensor.grad = None
    normalizers, sums = Normalizers({"pixels": hr.numel() // 3}), dict.fromkeys(whole, 0.0)
    for micro_batch in (slice(0, 2), slice(2, 5)):
        losses = criterion(
            {name: tensor[micro_batch] for name, tensor in outputs.items()},
            hr[micro_batch],
            normalizers,
        )
        losses["loss"].backward()
        sums = {name: sums[name] + value.item() for name, value in losses.items()}
    assert sums == pytest.approx({name: value.item() for name, value in whole.items()}, rel=1e-6)
    for name, tensor in outputs.items():
        torch.testing.assert_close(tensor.grad, gradients[name], rtol=1e-5, atol=1e-9)


def test_loss_is_fp32_whatever_comes_in():
    outputs, hr = some_outputs()
    half = {name: tensor.detach().bfloat16() for name, tensor in outputs.items()}
    with torch.autocast("cpu", torch.bfloat16):
        losses = SuperResolutionCriterion(aux_weight=1.0, frequency_weight=1.0, scale=2)(half, hr)
    assert {value.dtype for value in losses.values()} == {torch.float32}
    exact = SuperResolutionCriterion(frequency_weight=1.0)(
        {"sr": half["sr"].float(), "aux": None}, hr
    )
    assert losses["loss_frequency"].item() == pytest.approx(
        exact["loss_frequency"].item(), rel=1e-6
    )


def test_another_kind_of_loss_is_refused():
    with pytest.raises(ValueError, match="l1 or charbonnier, got 'l2'"):
        SuperResolutionCriterion("l2")
