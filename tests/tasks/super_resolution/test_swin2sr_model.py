"""Building Swin2SR: names, random weights, and weights of another scale."""

import json
import logging
import math

import pytest
import torch
from torch import nn

from visionloop.engine.errors import UserError
from visionloop.tasks.huggingface.hub import ModelSource
from visionloop.tasks.super_resolution.architectures import (
    ARCHITECTURES,
    MODEL_NAMES,
    PRETRAINED,
    SCALES_OF_HEAD,
    pretrained_name,
    scale_of,
)
from visionloop.tasks.super_resolution.model import (
    build_model,
    load_model,
    new_config,
    read_config,
    source_config,
)
from visionloop.tasks.super_resolution.network import Swin2SRForImageSuperResolution

# millions of parameters, measured on transformers' class with the released configs
PARAMETERS = {
    ("classical", 2): 12.09, ("classical", 3): 12.28, ("classical", 4): 12.24,
    ("classical", 8): 12.39, ("lightweight", 2): 1.005, ("lightweight", 4): 1.025,
    ("compressed", 4): 12.25, ("real-world", 4): 12.06, ("jpeg", 1): 11.84, ("tiny", 2): 0.253,
}  # fmt: skip
PIXELSHUFFLE = "upsample.upsample."


def build(source, *, init="authors", **settings):
    return build_model(source, source_config(source, **settings), init=init)


def architecture(name):
    return ModelSource(name, None, weights=False)


def from_folder(folder, *, weights=True):
    return ModelSource("x", folder, weights=weights)


def edit_config(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def new_names(folder, module):
    """Names of weights that a folder does not hold or holds otherwise."""
    stored = load_model(folder).state_dict()
    return [
        name
        for name, tensor in module.state_dict().items()
        if name not in stored or not torch.equal(tensor, stored[name])
    ]


@pytest.mark.parametrize("name, scale", PARAMETERS)
def test_every_released_size_has_its_number_of_parameters(name, scale):
    with torch.device("meta"):
        module = Swin2SRForImageSuperResolution(new_config(name, scale))
    millions = sum(parameter.numel() for parameter in module.parameters()) / 1e6
    assert millions == pytest.approx(PARAMETERS[name, scale], abs=0.006 if millions > 2 else 0.0006)


def test_every_architecture_builds_at_each_of_its_scales():
    for name, entry in ARCHITECTURES.items():
        for scale in entry.scales:
            config = new_config(name, scale)
            assert (config.upscale, config.image_size) == (
                scale,
                entry.patch_size,
            ) and scale in SCALES_OF_HEAD[config.upsampler]
            assert entry.patch_size % config.window_size == 0, "training images need no margin"
            with torch.device("meta"):
                assert Swin2SRForImageSuperResolution(config).scale == scale
        with pytest.raises(UserError, match=f"--scale 7: {name} supports the scales "):
            new_config(name, 7)


@pytest.mark.parametrize(
    "name, expected",
    [
        ("caidas/swin2sr-classicalsr-x2-64", ("classical", 2)),
        ("caidas/swin2SR-classical-sr-x2-64", ("classical", 2)),
        ("caidas/swin2sr-classical-sr-x4-64", ("classical", 4)),
        ("swin2SR-lightweight-x2-64", ("lightweight", 2)),
        ("caidas/swin2sr-lightweightsr-x2-64", ("lightweight", 2)),
        ("caidas/Swin2SR-real-world-sr-x4-64-bsrgan-psnr", ("real-world", 4)),
        ("swin2sr-compressedsr-x4-48", ("compressed", 4)),
        ("compressed-x4", ("compressed", 4)),
    ],
)
def test_names_of_released_weights_lead_to_their_architecture_and_scale(name, expected):
    assert MODEL_NAMES.aliases.get(name, name) == PRETRAINED[expected]
    assert scale_of(name) == expected[1] and pretrained_name(name, 3) == name
    assert MODEL_NAMES.find(name, True) == ModelSource(expected[0], None, weights=False)
    assert not MODEL_NAMES.is_from_scratch(name, False)


def test_an_architecture_starts_from_released_weights_of_its_scale_or_of_x2():
    assert (
        pretrained_name("classical")
        == pretrained_name("classical", 2)
        == pretrained_name("classical", 3)
        == pretrained_name("classical", 8)
        == PRETRAINED["classical", 2]
    )
    assert (
        pretrained_name("classical", 4) == PRETRAINED["classical", 4]
        and pretrained_name("real-world") == PRETRAINED["real-world", 4]
    )
    assert (
        pretrained_name("lightweight", 4) == PRETRAINED["lightweight", 2]
        and pretrained_name("compressed") == PRETRAINED["compressed", 4]
    )
    assert [pretrained_name(name) for name in ("tiny", "denoise", "jpeg")] == [
        "tiny",
        "denoise",
        "jpeg",
    ]
    assert all(MODEL_NAMES.is_from_scratch(name, False) for name in ("tiny", "denoise", "jpeg"))
    assert (
        scale_of("classical"),
        scale_of("real-world"),
        scale_of("jpeg"),
        scale_of("some/folder"),
    ) == (2, 4, 1, None)


def test_init_transformers_keeps_the_convolutions_of_transformers(save_tiny):
    torch.manual_seed(0)
    module = build(architecture("tiny"), init="transformers")
    convolutions = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    assert all(
        layer.weight.std().item() == pytest.approx(0.02, rel=0.08) and not layer.bias.any()
        for layer in convolutions
    )
    # of another scale, the new part of the head
    larger = build(from_folder(save_tiny("pixelshuffle", 2)), scale=4, init="transformers")
    assert larger.upsample.upsample.convolution_1.weight.std().item() == pytest.approx(
        0.02, rel=0.08
    )


def test_random_convolutions_are_as_torch_draws_them_and_linear_layers_as_transformers_does():
    torch.manual_seed(0)
    module = build(architecture("tiny"))
    assert module.training and {parameter.dtype for parameter in module.parameters()} == {
        torch.float32
    }
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d):
            fan_in = layer.weight[0].numel()
            assert layer.weight.std().item() == pytest.approx(
                1 / math.sqrt(3 * fan_in), rel=0.08
            ), name
            assert layer.bias.abs().max() > 0.5 / math.sqrt(fan_in), name
        elif isinstance(layer, nn.Linear) and layer.weight.numel() > 1000:
            assert layer.weight.std().item() == pytest.approx(0.02, rel=0.08), name
            assert layer.bias is None or not layer.bias.any(), name


def test_blocks_shift_their_windows_unless_the_training_image_is_one_window():
    shifts = [
        block.shift_size
        for stage in build(architecture("tiny")).swin2sr.encoder.stages
        for block in stage.layers
    ]
    assert shifts == [0, 4, 0, 4]
    assert source_config(architecture("tiny"), image_size=32).image_size == 32
    with pytest.raises(
        UserError,
        match="--patch-size: 8 pixels, expected more than the window's 8: no block would shift",
    ):
        source_config(architecture("tiny"), image_size=8)


def test_a_folder_with_weights_keeps_the_size_it_was_trained_with(save_tiny):
    folder = save_tiny(image_size=16)
    assert source_config(from_folder(folder), image_size=48).image_size == 16
    assert source_config(from_folder(folder, weights=False), image_size=48).image_size == 48
    edit_config(folder, image_size=[16, 16])
    assert build(from_folder(folder)).config.image_size == 16


def test_the_same_scale_keeps_every_weight(save_tiny, caplog):
    folder = save_tiny("pixelshuffle", 2)
    assert (
        new_names(folder, build(from_folder(folder)))
        == new_names(folder, build(from_folder(folder), scale=2))
        == []
    )
    assert not caplog.text


@pytest.mark.parametrize(
    "upsampler, old, scale, layers",
    [
        ("pixelshuffle", 2, 4, ["upsample.convolution_1"]),
        ("pixelshuffle", 2, 8, ["upsample.convolution_1", "upsample.convolution_2"]),
        ("pixelshuffle", 2, 3, ["upsample.convolution"]),
        ("pixelshuffle", 4, 2, []),
        ("pixelshuffle_aux", 4, 8, ["upsample.convolution_2"]),
        ("pixelshuffledirect", 2, 4, ["conv"]),
        ("pixelshuffledirect", 2, 3, ["conv"]),
    ],
)
def test_another_scale_starts_with_all_weights_but_those_of_its_upsampler(
    save_tiny, caplog, upsampler, old, scale, layers
):
    folder = save_tiny(upsampler, old)
    with caplog.at_level(logging.WARNING):
        module = build(from_folder(folder), scale=scale)
    expected = sorted(f"upsample.{layer}.{kind}" for layer in layers for kind in ("weight", "bias"))
    assert sorted(new_names(folder, module)) == expected
    (record,) = caplog.records
    assert (
        record.getMessage()
        == f"{folder}: from x{old} to x{scale}, new weights: {', '.join(expected) or 'none'}"
    )
    assert module.training and module.scale == module.upscale == module.config.upscale == scale
    assert module(torch.rand(1, 3, 8, 8))["sr"].shape == (1, 3, 8 * scale, 8 * scale)


@pytest.mark.parametrize(
    "upsampler, old, scale, head",
    [("pixelshuffle", 2, 1, ""), ("", 1, 2, "pixelshuffledirect"), ("nearest+conv", 4, 1, "")],
)
def test_between_restoration_and_larger_images_the_body_is_carried_and_the_head_is_new(
    save_tiny, caplog, upsampler, old, scale, head
):
    folder = save_tiny(upsampler, old, img_range=2.0)
    with caplog.at_level(logging.WARNING):
        module = build(from_folder(folder), scale=scale)
    new = new_names(folder, module)
    assert (
        new == [name for name in module.state_dict() if not name.startswith("swin2sr.")]
        and len(caplog.records) == 1
    )
    assert (module.upsampler, module.config.img_range, module.config.upsampler) == (head, 2.0, head)
    assert module(torch.rand(1, 3, 9, 8))["sr"].shape == (1, 3, 9 * scale, 8 * scale)


def test_a_wide_body_without_a_head_gets_the_classical_one(save_tiny):
    folder = save_tiny("", 1, embed_dim=72)
    assert source_config(from_folder(folder), scale=4).upsampler == "pixelshuffle"


def test_a_head_without_the_requested_scale_is_an_error_of_one_line(save_tiny):
    with pytest.raises(
        UserError, match=r"--scale 2: the head of .*model \(nearest\+conv\) supports the scales 4"
    ):
        source_config(from_folder(save_tiny("nearest+conv", 4)), scale=2)
    with pytest.raises(UserError, match="--scale 5: lightweight supports the scales 2, 3, 4"):
        source_config(architecture("lightweight"), scale=5)


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"model_type": "swinv2"}, "a swinv2 model, expected swin2sr"),
        ({"resi_connection": "3conv"}, "resi_connection '3conv', expected '1conv'"),
        ({"num_channels": 1, "num_channels_out": 1}, "num_channels 1, expected 3"),
        ({"use_absolute_embeddings": True}, "use_absolute_embeddings True, expected False"),
        ({"patch_size": 2}, "patch_size 2, expected 1"),
        ({"image_size": [24, 32]}, r"image_size \[24, 32\], expected a square"),
        ({"upsampler": None}, "upsampler"),
        ({"upsampler": "", "upscale": 2}, "upsampler '' and upscale 2, which do not go together"),
        ({"upsampler": "pixelshuffle_hf"}, "upsampler 'pixelshuffle_hf' and upscale 2"),
        ({"upscale": 5}, "upscale 5"),
    ],
)
def test_unsupported_networks_are_refused_in_one_line(save_tiny, fields, words):
    folder = save_tiny()
    edit_config(folder, **fields)
    with pytest.raises(UserError, match=words) as refusal:
        read_config(folder)
    assert "\n" not in str(refusal.value) and str(refusal.value).startswith(f"--model {folder}: ")
