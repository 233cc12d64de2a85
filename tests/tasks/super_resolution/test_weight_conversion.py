"""The Hugging Face folder of a Swin2SR: bit for bit, and corrected for plain transformers."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from visionloop.engine.errors import UserError
from visionloop.tasks.huggingface.hub import ModelSource
from visionloop.tasks.super_resolution.export import load_folder, save_folder, save_plain_folder
from visionloop.tasks.super_resolution.model import build_model, load_model, source_config

HEADS = [
    ("pixelshuffle", 2),
    ("pixelshuffledirect", 3),
    ("nearest+conv", 4),
    ("pixelshuffle_aux", 4),
    ("", 1),
]
# what plain transformers gets wrong: head, scale, range, pixels at the edge that no correction
# reaches
CORRECTED = [
    ("", 1, 1.0, 0),
    ("", 1, 255.0, 0),
    ("pixelshuffle_aux", 2, 1.0, 2),
    ("pixelshuffle_aux", 4, 255.0, 2),
]


def build(folder, *, scale=None, official_heads=True):
    source = ModelSource("x", folder, weights=True)
    return build_model(source, source_config(source, scale=scale), official_heads=official_heads)


def images(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


def plain(folder):
    """The folder as plain transformers reads it."""
    return transformers.AutoModelForImageToImage.from_pretrained(folder, use_safetensors=True)


def written_config(folder):
    return json.loads((folder / "config.json").read_text())


def rewrite(folder, change):
    """Let `change` edit the weights of a folder."""
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("official", [True, False])
@pytest.mark.parametrize("upsampler, scale", HEADS)
def test_a_folder_reads_back_bit_for_bit(tiny_network, tmp_path, upsampler, scale, official):
    module, other = tiny_network(upsampler, scale), tiny_network(upsampler, scale, seed=1)
    module.official_heads = official
    averaged = {name: tensor + 0.01 for name, tensor in module.state_dict().items()}
    save_folder(module, averaged, tmp_path)
    load_folder(other, tmp_path)
    assert all(torch.equal(tensor, averaged[name]) for name, tensor in other.state_dict().items())
    module.load_state_dict(averaged)
    assert torch.equal(other(images(1, 3, 9, 8))["sr"], module(images(1, 3, 9, 8))["sr"])
    assert other.training and other.official_heads == (
        official or upsampler not in ("", "pixelshuffle_aux")
    )


@pytest.mark.parametrize(
    "upsampler, scale", [head for head in HEADS if head[0] not in ("", "pixelshuffle_aux")]
)
def test_heads_that_are_transformers_need_no_correction(tiny_network, tmp_path, upsampler, scale):
    module, pixels = tiny_network(upsampler, scale).eval(), images(1, 3, 16, 12)
    assert save_plain_folder(module, module.state_dict(), tmp_path) == []
    assert not [name for name in written_config(tmp_path) if name.startswith("visionloop")]
    assert torch.equal(plain(tmp_path)(pixels).reconstruction, module(pixels)["sr"])


@pytest.mark.parametrize("upsampler, scale, img_range, edge", CORRECTED)
def test_plain_transformers_computes_the_official_image_of_a_corrected_folder(
    tiny_network, tmp_path, upsampler, scale, img_range, edge
):
    module, pixels = (
        tiny_network(upsampler, scale, img_range=img_range).eval(),
        images(2, 3, 16, 12),
    )
    (line,) = save_plain_folder(module, module.state_dict(), tmp_path)
    assert "plain transformers" in line and ("img_range 255 moved" in line) == (
        upsampler == "" and img_range != 1
    )
    ours, theirs = (
        output[..., edge : 16 * scale - edge, edge : 12 * scale - edge]
        for output in (module(pixels)["sr"], plain(tmp_path)(pixels).reconstruction)
    )
    torch.testing.assert_close(theirs, ours, atol=2e-6, rtol=2e-6)
    save_folder(module, module.state_dict(), tmp_path / "training")
    uncorrected = plain(tmp_path / "training")(pixels).reconstruction[
        ..., edge : 16 * scale - edge, edge : 12 * scale - edge
    ]
    assert (uncorrected - ours).abs().max() > 0.01
    assert written_config(tmp_path)["visionloop_heads"] == "plain"
    assert written_config(tmp_path / "training")["visionloop_heads"] == "official"


@pytest.mark.parametrize("upsampler, scale, img_range, edge", CORRECTED)
def test_a_corrected_folder_is_evaluated_as_plain_transformers_does(
    tiny_network, tmp_path, upsampler, scale, img_range, edge
):
    module, pixels = tiny_network(upsampler, scale, img_range=img_range), images(1, 3, 16, 12)
    save_plain_folder(module, module.state_dict(), tmp_path / "best")
    loaded = load_model(tmp_path / "best").eval()
    assert not loaded.official_heads and torch.equal(
        loaded(pixels)["sr"], plain(tmp_path / "best")(pixels).reconstruction
    )
    assert (
        save_plain_folder(loaded, loaded.state_dict(), tmp_path / "export") == []
    )  # nothing is corrected twice
    for name in ("config.json", "model.safetensors", "preprocessor_config.json"):
        assert (tmp_path / "export" / name).read_bytes() == (tmp_path / "best" / name).read_bytes()


@pytest.mark.parametrize("upsampler, scale, img_range, edge", CORRECTED)
def test_training_starts_from_a_corrected_folder_with_official_weights(
    tiny_network, tmp_path, upsampler, scale, img_range, edge
):
    module, pixels = tiny_network(upsampler, scale, img_range=img_range), images(1, 3, 16, 12)
    save_plain_folder(module, module.state_dict(), tmp_path / "best")
    again = build(tmp_path / "best")
    assert again.official_heads and again.config.img_range == again.swin2sr.img_range == img_range
    for name, tensor in again.state_dict().items():
        torch.testing.assert_close(
            tensor, module.state_dict()[name], rtol=1e-6, atol=1e-7 * img_range
        )
    torch.testing.assert_close(again(pixels)["sr"], module(pixels)["sr"], atol=2e-6, rtol=2e-6)
    save_folder(again, again.state_dict(), tmp_path / "step")
    assert written_config(tmp_path / "step") == written_config_of(module, tmp_path / "first")


def written_config_of(module, folder):
    save_folder(module, module.state_dict(), folder)
    return written_config(folder)


def test_without_official_heads_a_corrected_folder_trains_on_as_it_is(tiny_network, tmp_path):
    module, pixels = tiny_network("", 1), images(1, 3, 8, 8)
    save_plain_folder(module, module.state_dict(), tmp_path / "best")
    again = build(tmp_path / "best", official_heads=False)
    assert torch.equal(again(pixels)["sr"], plain(tmp_path / "best")(pixels).reconstruction)
    save_folder(again, again.state_dict(), tmp_path / "step")
    assert not load_model(tmp_path / "step").official_heads


def test_a_corrected_body_is_converted_back_before_it_gets_another_head(tiny_network, tmp_path):
    module = tiny_network("", 1, img_range=255.0)
    save_plain_folder(module, module.state_dict(), tmp_path)
    larger, name = build(tmp_path, scale=2), "swin2sr.first_convolution.weight"
    torch.testing.assert_close(
        larger.state_dict()[name], module.state_dict()[name], rtol=1e-6, atol=0
    )
    assert larger.config.img_range == 255 and larger.official_heads
    assert not [name for name in larger.config.to_dict() if name.startswith("visionloop")]


def test_random_weights_by_the_config_of_a_corrected_folder_read_the_range_it_was_trained_with(
    tiny_network, tmp_path
):
    module = tiny_network("", 1, img_range=255.0)
    save_plain_folder(module, module.state_dict(), tmp_path)
    source = ModelSource("x", tmp_path, weights=False)
    again = build_model(source, source_config(source))
    assert (
        again.swin2sr.img_range == 255
        and again.official_heads
        and not hasattr(again.config, "visionloop_heads")
    )


def test_saving_changes_neither_the_network_nor_its_tensors(tiny_network, tmp_path):
    module = tiny_network("", 1, img_range=255.0)
    module.double()  # the corrections compute in this type
    state, config = (
        {name: tensor.clone() for name, tensor in module.state_dict().items()},
        module.config.to_dict(),
    )
    save_plain_folder(module, module.state_dict(), tmp_path)
    assert module.config.to_dict() == config and all(
        torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items()
    )


def test_a_released_folder_has_no_mark_and_is_official(tiny_network, tmp_path):
    theirs = transformers.Swin2SRForImageSuperResolution(tiny_network("pixelshuffle_aux", 4).config)
    theirs.save_pretrained(tmp_path)
    rewrite(
        tmp_path,
        lambda weights: weights.update(
            {"swin2sr.encoder.stages.0.layers.1.attn_mask": torch.ones(1)}
        ),
    )
    module = build(tmp_path)
    assert module.official_heads and load_model(tmp_path).official_heads
    assert all(
        torch.equal(tensor, theirs.state_dict()[name])
        for name, tensor in module.state_dict().items()
    )


@pytest.mark.parametrize("window", [4, 7])
def test_transformers_processor_reads_the_folder_and_its_images_fit_the_windows(save_tiny, window):
    folder = save_tiny(window_size=window, image_size=28)
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    pixels = processor((images(3, 9, 13) * 255).byte(), return_tensors="pt")["pixel_values"]
    assert type(processor).__name__ == "Swin2SRImageProcessor"
    assert (
        pixels.shape[-2:] == (-(-9 // window) * window, -(-13 // window) * window)
        and pixels.max() <= 1
    )
    assert plain(folder)(pixels).reconstruction.shape[-1] == 2 * pixels.shape[-1]
    assert written_config(folder)["architectures"] == ["Swin2SRForImageSuperResolution"]


def test_missing_and_unknown_weights_are_errors(save_tiny):
    folder = save_tiny("pixelshuffle", 2)
    rewrite(folder, lambda weights: weights.update({"swin2sr.gate.weight": torch.ones(1)}))
    with pytest.raises(UserError, match=r"1 unexpected weights, first swin2sr\.gate\.weight"):
        build(folder)
    rewrite(
        folder,
        lambda weights: [
            weights.pop(name) for name in ("swin2sr.gate.weight", "upsample.final_convolution.bias")
        ],
    )
    for scale in (2, 4):  # another scale is no excuse
        with pytest.raises(
            UserError, match=r"1 missing weights, first upsample\.final_convolution\.bias"
        ):
            build(folder, scale=scale)
    (folder / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"--model .*model: "):
        load_model(folder)
