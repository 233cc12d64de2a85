"""EoMT on the weights of a plain ViT."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers import (
    AutoModel,
    AutoModelForImageClassification,
    Dinov2Config,
    Dinov2WithRegistersConfig,
    DINOv3ViTConfig,
    PvtConfig,
    ViTConfig,
)

from visionloop.engine.errors import UserError
from visionloop.tasks.huggingface.hub import ModelSource
from visionloop.tasks.segmentation.backbones import eomt_config
from visionloop.tasks.segmentation.model import build_model, load_model, read_config, source_config
from visionloop.tasks.segmentation.positions import resample_patches

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
CONFIGS = {
    "dinov2": Dinov2Config(**SMALL, mlp_ratio=2),
    "dinov2_with_registers": Dinov2WithRegistersConfig(**SMALL, mlp_ratio=2, num_register_tokens=3),
    "dinov2_swiglu": Dinov2Config(**SMALL, use_swiglu_ffn=True),
    "vit": ViTConfig(**SMALL, intermediate_size=64),
    "vit_without_bias": ViTConfig(**SMALL, intermediate_size=64, qkv_bias=False),
    "dinov3": DINOv3ViTConfig(**SMALL, intermediate_size=48, num_register_tokens=2),
    "dinov3_gated": DINOv3ViTConfig(
        **SMALL, intermediate_size=48, use_gated_mlp=True, hidden_act="silu", rope_theta=50.0
    ),
}


def built(source, classes, **settings):
    return build_model(source, classes, source_config(source, **settings))


def save_backbone(folder, config, auto=AutoModel):
    """Write a folder of random weights, none of them zero or one; return the module."""
    torch.manual_seed(3)
    module = auto.from_config(config)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    module.save_pretrained(folder)
    return module.eval()


def build(folder, **settings):
    return built(ModelSource("x", folder, weights=True), ["sky", "road"], **settings)


@torch.no_grad()
def hidden_states(module, pixels):
    """Return the tokens of an image after all blocks and the norm, without queries."""
    tokens, extra = module.embed(pixels)
    for layer in module.layers:
        tokens = layer(tokens, attention_mask=None, **extra)
    return module.layernorm(tokens)


@pytest.mark.parametrize("kind", CONFIGS)
def test_hidden_states_before_the_queries_are_the_backbones_to_the_last_bit(kind, tmp_path):
    backbone, module = save_backbone(tmp_path, CONFIGS[kind]), build(tmp_path).eval()
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        theirs = backbone(pixels).last_hidden_state
    assert torch.equal(hidden_states(module, pixels), theirs)


@pytest.mark.parametrize("kind", ["dinov2", "dinov2_with_registers", "vit"])
def test_a_classifier_gives_its_trunk(kind, tmp_path):
    classifier, module = (
        save_backbone(tmp_path, CONFIGS[kind], AutoModelForImageClassification),
        build(tmp_path).eval(),
    )
    pixels = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(
            hidden_states(module, pixels), classifier.base_model(pixels).last_hidden_state
        )


def test_heads_and_queries_start_at_random_and_everything_trains(tmp_path):
    save_backbone(tmp_path, CONFIGS["dinov3"])
    module = build(tmp_path, num_queries=200)
    assert module.training and module.query.weight.std().item() == pytest.approx(1, rel=0.05)
    masks, classes = module(torch.randn(1, 3, 32, 32))
    assert masks.shape == (1, 2, 200, 8, 8) and classes.shape == (1, 2, 200, 3)
    (masks.sum() + classes.sum()).backward()
    assert [name for name, parameter in module.named_parameters() if parameter.grad is None] == []


def test_the_size_of_dinov2_becomes_512_px_in_patches_of_16():
    config = eomt_config(Dinov2Config(image_size=518), "x")
    assert (
        config.image_size,
        config.patch_size,
        config.num_upscale_blocks,
        config.num_blocks,
        config.num_queries,
    ) == (512, 16, 2, 3, 100)


def test_sizes_follow_the_backbone():
    def shape(**fields):
        config = eomt_config(ViTConfig(**fields), "x")
        return config.image_size, config.patch_size, config.num_upscale_blocks, config.num_blocks

    assert shape() == (512, 16, 2, 3)
    assert shape(image_size=64, patch_size=8, num_hidden_layers=6) == (64, 8, 1, 2)
    assert shape(image_size=224, patch_size=8, num_hidden_layers=24) == (224, 8, 1, 4)
    assert shape(image_size=[98, 98], patch_size=[14, 14], num_hidden_layers=2) == (112, 16, 2, 1)
    assert shape(image_size=384, patch_size=32, num_hidden_layers=40) == (384, 32, 3, 5)


def test_a_new_filter_responds_to_the_enlarged_patch_as_the_old_one_did():
    torch.manual_seed(0)
    weight, patch = torch.randn(8, 3, 14, 14), torch.randn(1, 3, 14, 14)
    enlarged = F.interpolate(patch, size=(16, 16), mode="bicubic", antialias=True)
    old, new = F.conv2d(patch, weight), F.conv2d(enlarged, resample_patches(weight, 16))
    assert (old - new).abs().max() < 1e-4 < old.abs().max()
    naive = F.conv2d(enlarged, F.interpolate(weight, size=(16, 16), mode="bicubic", antialias=True))
    assert (old - naive).abs().max() > 1
    assert resample_patches(weight, 14) is weight


def test_patches_of_14_become_16_and_the_positions_fit(tmp_path):
    backbone = save_backbone(
        tmp_path, Dinov2Config(**SMALL | {"image_size": 56, "patch_size": 14}, mlp_ratio=2)
    )
    module = build(tmp_path)
    assert (module.config.image_size, module.config.patch_size, module.grid_size) == (
        64,
        16,
        (4, 4),
    )
    stored = backbone.state_dict()["embeddings.position_embeddings"]
    assert torch.equal(module.embeddings.position_embeddings.weight, stored[0, 1:])
    pixels = torch.randn(1, 3, 14, 14).tile(1, 1, 4, 4)
    enlarged = F.interpolate(
        pixels[..., :14, :14], size=(16, 16), mode="bicubic", antialias=True
    ).tile(1, 1, 4, 4)
    with torch.no_grad():
        assert torch.allclose(module.embeddings(enlarged), backbone.embeddings(pixels), atol=1e-4)


def test_another_image_size_resizes_the_backbones_positions(tmp_path):
    save_backbone(tmp_path, CONFIGS["vit"])
    module = build(tmp_path, image_size=48)
    assert module.embeddings.position_embeddings.weight.shape == (36, 32)
    assert module(torch.randn(1, 3, 48, 48))[0].shape == (1, 2, 100, 12, 12)
    with pytest.raises(UserError, match="multiple of the model's patch size 8"):
        build(tmp_path, image_size=50)


def test_a_vit_that_eomt_cannot_express_is_refused(tmp_path):
    ViTConfig(**SMALL, intermediate_size=80).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="MLP's width 80 is no multiple of its width 32"):
        read_config(tmp_path)
    ViTConfig(**SMALL, intermediate_size=64, num_channels=1).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="reads 1 channels, expected 3"):
        read_config(tmp_path)
    PvtConfig().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"a pvt model, expected eomt, .* dinov3_vit"):
        read_config(tmp_path)


def test_a_missing_weight_of_the_trunk_is_an_error(tmp_path):
    save_backbone(tmp_path, CONFIGS["vit"])
    weights = load_file(tmp_path / "model.safetensors")
    name = next(name for name in weights if "norm" in name)
    del weights[name]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="1 missing weights"):
        build(tmp_path)


def test_a_backbone_from_scratch_is_its_shape_alone(tmp_path):
    save_backbone(tmp_path, CONFIGS["dinov2_with_registers"])
    (tmp_path / "model.safetensors").unlink()
    module = built(ModelSource("x", tmp_path, weights=False), ["sky"], num_blocks=2)
    assert (
        module.config.num_register_tokens == 3
        and module.config.num_blocks == 2
        and len(module.layers) == 3
    )


def test_a_plain_vit_is_no_trained_segmenter(tmp_path):
    save_backbone(tmp_path, CONFIGS["vit"])
    with pytest.raises(UserError, match="a plain ViT, expected a trained EoMT"):
        load_model(tmp_path)
