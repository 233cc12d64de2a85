"""The forward against transformers' and the authors': sizes, heads, reach and precision."""

import pytest
import torch
import transformers
from torch import nn
from torch.nn import functional as F

from visionloop.engine.grad_checkpointing import apply_grad_checkpointing
from visionloop.tasks.super_resolution.network import grad_checkpointing_blocks, pad_to_window

HEADS = [
    ("pixelshuffle", 2),
    ("pixelshuffle", 3),
    ("pixelshuffledirect", 2),
    ("nearest+conv", 4),
    ("pixelshuffle_aux", 4),
    ("", 1),
]
LAST = dict.fromkeys(("pixelshuffle", "nearest+conv", "pixelshuffle_aux"), "final_convolution") | {
    "pixelshuffledirect": "conv"
}
SAME_HEADS = [head for head in HEADS if head[0] not in ("", "pixelshuffle_aux")]


def images(*shape, seed=1):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def transformers_twin(module):
    """transformers' own class with the same weights."""
    twin = transformers.Swin2SRForImageSuperResolution(module.config)
    twin.load_state_dict(module.state_dict())
    return twin.train(module.training)


class AuthorsAuxHead(nn.Module):
    """The head for compressed input as the authors wrote it, on normalized pixels."""

    def __init__(self, state, scale, img_range):
        super().__init__()
        self.state, self.scale, self.img_range = state, scale, img_range

    def convolve(self, x, name):
        return F.conv2d(
            x, self.state[f"upsample.{name}.weight"], self.state[f"upsample.{name}.bias"], padding=1
        )

    def forward(self, features, pixels):
        mean = torch.tensor([0.4488, 0.4371, 0.4040])[:, None, None]
        normalized = (pixels - mean) * self.img_range
        bicubic = self.convolve(
            F.interpolate(normalized, scale_factor=self.scale, mode="bicubic"), "conv_bicubic"
        )
        aux = self.convolve(
            F.leaky_relu(self.convolve(features, "conv_before_upsample")), "conv_aux"
        )
        x = F.leaky_relu(self.convolve(aux, "conv_after_aux.0"))
        for i in range(self.scale.bit_length() - 1):
            x = F.pixel_shuffle(self.convolve(x, f"upsample.convolution_{i}"), 2)
        sr = self.convolve(x + bicubic, "final_convolution")
        return sr / self.img_range + mean, aux / self.img_range + mean


@pytest.mark.parametrize("upsampler, scale", HEADS)
@pytest.mark.parametrize("height, width", [(17, 22), (1, 9), (3, 2)])
def test_images_of_any_size_come_out_scale_times_larger(
    tiny_network, upsampler, scale, height, width
):
    output = tiny_network(upsampler, scale)(images(2, 3, height, width))
    assert (
        output["sr"].shape == (2, 3, scale * height, scale * width)
        and output["sr"].isfinite().all()
    )
    if upsampler == "pixelshuffle_aux":
        assert output["aux"].shape == (2, 3, height, width)
    else:
        assert output["aux"] is None


@pytest.mark.parametrize("upsampler, scale", SAME_HEADS)
def test_images_that_windows_divide_are_transformers_bit_for_bit(tiny_network, upsampler, scale):
    module, pixels = tiny_network(upsampler, scale), images(2, 3, 16, 24)
    assert torch.equal(module(pixels)["sr"], transformers_twin(module)(pixels).reconstruction)


@pytest.mark.parametrize("upsampler, scale", SAME_HEADS)
def test_other_images_are_transformers_on_a_mirrored_margin_bit_for_bit(
    tiny_network, upsampler, scale
):
    module, pixels = tiny_network(upsampler, scale), images(1, 3, 21, 30)
    mirrored = F.pad(pixels, (0, 2, 0, 3), mode="reflect")
    whole = transformers_twin(module)(mirrored).reconstruction
    assert torch.equal(module(pixels)["sr"], whole[..., : 21 * scale, : 30 * scale])


@pytest.mark.parametrize(
    "upsampler, scale, img_range", [("", 1, 1.0), ("", 1, 255.0), ("pixelshuffle_aux", 4, 1.0)]
)
def test_without_official_heads_the_output_is_plain_transformers_bit_for_bit(
    tiny_network, upsampler, scale, img_range
):
    module, pixels = tiny_network(upsampler, scale, img_range=img_range), images(2, 3, 16, 24)
    theirs = transformers_twin(module)(pixels).reconstruction
    assert (module(pixels)["sr"] - theirs).abs().max() > 0.05
    module.official_heads = False
    assert torch.equal(module(pixels)["sr"], theirs)


def test_margins_mirror_the_image_and_repeat_the_edge_of_sides_too_short_for_that():
    row = torch.arange(5.0).expand(1, 1, 8, 5)
    assert pad_to_window(row, 8)[0, 0, 0].tolist() == [0, 1, 2, 3, 4, 3, 2, 1]
    assert pad_to_window(row[..., :3], 8)[0, 0, 0].tolist() == [0, 1, 2, 2, 2, 2, 2, 2]
    assert pad_to_window(row.mT, 8)[0, 0, :, 0].tolist() == [0, 1, 2, 3, 4, 3, 2, 1]
    assert pad_to_window(torch.ones(1, 1, 1, 8), 8).shape == (1, 1, 8, 8)
    assert pad_to_window(row.expand(1, 1, 8, 5)[..., :4], 4).shape == (1, 1, 8, 4)


@pytest.mark.parametrize("img_range", [1.0, 255.0])
def test_without_a_residual_restoration_gives_back_the_image(tiny_network, img_range):
    module, pixels = tiny_network("", 1, img_range=img_range), images(2, 3, 13, 18)
    nn.init.zeros_(module.final_convolution.weight)
    nn.init.zeros_(module.final_convolution.bias)
    assert torch.equal(module(pixels)["sr"], pixels)


@pytest.mark.parametrize("img_range", [1.0, 255.0])
def test_a_residual_is_added_in_units_of_the_range(tiny_network, img_range):
    module, pixels = tiny_network("", 1, img_range=img_range), images(2, 3, 16, 16)
    body, head = module.swin2sr(pixels).last_hidden_state, module.final_convolution
    mean = torch.tensor([0.4488, 0.4371, 0.4040])[:, None, None]
    authors = ((pixels - mean) * img_range + head(body)) / img_range + mean
    torch.testing.assert_close(module(pixels)["sr"], authors, atol=5e-7, rtol=0)


@pytest.mark.parametrize("scale, img_range", [(2, 1.0), (4, 1.0), (4, 255.0)])
def test_both_images_of_the_head_for_compressed_input_are_the_authors(
    tiny_network, scale, img_range
):
    module, pixels = (
        tiny_network("pixelshuffle_aux", scale, img_range=img_range),
        images(2, 3, 16, 24),
    )
    ours, head = module(pixels), AuthorsAuxHead(module.state_dict(), scale, img_range)
    sr, aux = head(module.swin2sr(pixels).last_hidden_state, pixels)
    torch.testing.assert_close(ours["sr"], sr, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(ours["aux"], aux, atol=1e-6, rtol=1e-6)


def test_the_auxiliary_image_teaches_its_convolution_and_the_body(tiny_network):
    module = tiny_network("pixelshuffle_aux", 4)
    module(images(1, 3, 12, 12))["aux"].sum().backward()
    assert module.upsample.conv_aux.weight.grad.abs().sum() > 0
    assert module.swin2sr.first_convolution.weight.grad.abs().sum() > 0
    assert (
        module.upsample.final_convolution.weight.grad is None
    )  # its gradient came through the auxiliary image alone


@pytest.mark.parametrize("upsampler, scale", HEADS)
def test_every_parameter_has_a_gradient(tiny_network, upsampler, scale):
    module = tiny_network(upsampler, scale)
    module(images(1, 3, 12, 12))["sr"].square().sum().backward()
    assert [name for name, parameter in module.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("upsampler, scale", [("pixelshuffle", 2), ("pixelshuffle_aux", 4)])
def test_recomputing_the_stages_changes_no_bit(tiny_network, upsampler, scale, autocast):
    def gradients(module):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = module(images(2, 3, 12, 16))["sr"].square().sum()
        loss.backward()
        return {
            "loss": loss.detach(),
            **{name: parameter.grad for name, parameter in module.named_parameters()},
        }

    plain, recomputed = (tiny_network(upsampler, scale, hidden_dropout_prob=0.1) for _ in range(2))
    apply_grad_checkpointing(grad_checkpointing_blocks(recomputed))
    gradients_of = []
    for module in (plain, recomputed):
        torch.manual_seed(3)  # dropout
        gradients_of.append(gradients(module))
    assert len(grad_checkpointing_blocks(plain)) == 2 and all(
        torch.equal(tensor, gradients_of[1][name]) for name, tensor in gradients_of[0].items()
    )


@pytest.mark.parametrize(
    "upsampler, scale, fields, reach",
    [
        ("pixelshuffledirect", 2, {"window_size": 8}, 23),
        ("pixelshuffledirect", 2, {"depths": [2], "num_heads": [2]}, 9),
        ("pixelshuffle", 3, {"depths": [2], "num_heads": [2]}, 11),
        ("nearest+conv", 4, {"depths": [2], "num_heads": [2]}, 11),
        ("pixelshuffle_aux", 2, {"depths": [2], "num_heads": [2]}, 13),
        ("", 1, {"depths": [1, 2], "window_size": 7}, 21),
    ],
)
def test_nothing_beyond_the_reach_changes_a_pixel_and_the_reach_is_no_wider_than_needed(
    tiny_network, upsampler, scale, fields, reach
):
    module = tiny_network(upsampler, scale, **fields).eval()
    assert module.reach == reach
    window, middle = module.window, module.window * (reach // module.window + 2)
    pixels, farthest = images(1, 3, 2 * middle, 2 * middle), 0
    for place in range(middle, middle + window):
        for phase in {0, scale - 1}:
            x = pixels.clone().requires_grad_()
            at = place * scale + phase
            rows = (
                torch.autograd.grad(module(x)["sr"][0, :, at, at].sum(), x)[0]
                .abs()
                .sum((0, 1, 3))
                .nonzero()
            )
            farthest = max(farthest, place - rows.min().item(), rows.max().item() - place)
    assert farthest == reach


@pytest.mark.parametrize("upsampler, scale", HEADS)
def test_under_bf16_the_last_layer_computes_in_fp32(tiny_network, upsampler, scale):
    module, pixels, last = tiny_network(upsampler, scale), images(2, 3, 16, 16), []
    exact = module(pixels)
    layer = (
        module.final_convolution
        if upsampler == ""
        else module.upsample.get_submodule(LAST[upsampler])
    )
    layer.register_forward_hook(
        lambda _, inputs, output: last.append((inputs[0].dtype, output.dtype))
    )
    with torch.autocast("cpu", torch.bfloat16):
        output = module(pixels)
    assert last == [(torch.float32, torch.float32)]
    for name, tensor in output.items():
        if tensor is not None:
            assert tensor.dtype == torch.float32 and 0 < (tensor - exact[name]).abs().max() < 0.05
    output["sr"].sum().backward()
