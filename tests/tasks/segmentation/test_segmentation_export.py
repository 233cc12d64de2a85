"""Hugging Face folders of EoMT: those of the hub, and ours."""

import json
import logging

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from visionloop.engine.errors import UserError
from visionloop.tasks.huggingface.hub import ModelSource
from visionloop.tasks.segmentation.export import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    load_folder,
    save_folder,
)
from visionloop.tasks.segmentation.model import (
    build_model,
    load_model,
    new_model,
    read_config,
    source_config,
)


def build(source, classes, **settings):
    return build_model(source, classes, source_config(source, **settings))


def from_folder(folder):
    return ModelSource("x", folder, weights=True)


def rewrite(folder, change):
    """Let `change` edit the weights of a folder."""
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_folder_in_the_hubs_layout_loads_with_only_the_class_head_new(tiny_module, tmp_path):
    theirs = transformers.EomtForUniversalSegmentation(
        tiny_module([f"thing {i}" for i in range(9)]).config
    )
    theirs.save_pretrained(tmp_path)
    module, stored = (
        build(from_folder(tmp_path), ["sky", "road"]),
        load_file(tmp_path / "model.safetensors"),
    )
    new = [
        name
        for name, tensor in module.state_dict().items()
        if not torch.equal(tensor, stored[name])
    ]
    assert new == ["class_predictor.weight", "class_predictor.bias", "criterion.empty_weight"]


def test_a_resized_model_reads_back_bit_for_bit(save_tiny, tmp_path):
    module = build(from_folder(save_tiny()), ["sky"], image_size=48, num_queries=12, num_blocks=1)
    save_folder(module, module.state_dict(), tmp_path / "again", 48, IMAGENET_MEAN, IMAGENET_STD)
    again, pixels = load_model(tmp_path / "again").eval(), torch.randn(1, 3, 48, 48)
    for ours, stored in zip(module.eval()(pixels), again(pixels), strict=True):
        assert torch.equal(ours, stored)


def test_the_probabilities_of_masks_are_stored_in_the_folder(tiny_module, tmp_path):
    module = tiny_module()
    module.mask_probs = [0.25, 1.0]
    save_folder(module, module.state_dict(), tmp_path, 32, IMAGENET_MEAN, IMAGENET_STD)
    assert load_model(tmp_path).mask_probs == [0.25, 1.0]
    other = tiny_module()
    load_folder(other, tmp_path)
    assert other.mask_probs == [0.25, 1.0]
    rewrite(tmp_path, lambda weights: weights.pop("attn_mask_probs"))
    assert load_model(tmp_path).mask_probs == [0.0, 0.0]  # without the buffer: trained to the end


def test_a_folder_loads_with_transformers(save_tiny, tiny_module):
    folder, module = save_tiny(), tiny_module()
    theirs = transformers.AutoModelForUniversalSegmentation.from_pretrained(
        folder, use_safetensors=True
    ).state_dict()
    assert theirs.keys() == module.state_dict().keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in module.state_dict().items())
    assert json.loads((folder / "config.json").read_text())["architectures"] == [
        "EomtForUniversalSegmentation"
    ]


def test_fused_layers_of_older_files_are_split(save_tiny):
    folder = save_tiny(use_swiglu_ffn=True)
    before = load_model(folder).state_dict()

    def fuse(weights):
        for name in [name for name in weights if ".mlp." in name]:
            mlp, part, kind = name.rsplit(".", 2)
            if part == "gate_proj":
                weights[f"{mlp}.weights_in.{kind}"] = torch.cat(
                    [weights.pop(name), weights.pop(f"{mlp}.up_proj.{kind}")]
                )
            elif part == "down_proj":
                weights[f"{mlp}.weights_out.{kind}"] = weights.pop(name)

    rewrite(folder, fuse)
    assert "layers.0.mlp.weights_in.weight" in load_file(folder / "model.safetensors")
    after = load_model(folder).state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    rewrite(folder, lambda weights: weights.pop("layers.1.mlp.weights_out.bias"))
    with pytest.raises(
        UserError, match=r"1 missing weights, first layers\.1\.mlp\.down_proj\.bias"
    ):
        load_model(folder)


def test_missing_and_unknown_weights_are_errors_but_for_heads(save_tiny, caplog):
    folder = save_tiny()
    heads = ("class_predictor.weight", "class_predictor.bias", "criterion.empty_weight")
    rewrite(folder, lambda weights: [weights.pop(name) for name in heads])
    with caplog.at_level(logging.WARNING):
        load_model(folder)
    assert "holds no class head" in caplog.text
    rewrite(folder, lambda weights: weights.update({"layers.0.gate.weight": torch.ones(1)}))
    with pytest.raises(UserError, match=r"1 unexpected weights, first layers\.0\.gate\.weight"):
        load_model(folder)
    rewrite(
        folder,
        lambda weights: [
            weights.pop(name) for name in ("layers.0.gate.weight", "mask_head.fc1.bias")
        ],
    )
    with pytest.raises(UserError, match=r"1 missing weights, first mask_head\.fc1\.bias"):
        load_model(folder)


def test_broken_folders_are_an_error_of_one_line(save_tiny):
    folder = save_tiny()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"image_size": [32, 32]}))
    assert read_config(folder).image_size == 32 and load_model(folder).grid_size == (4, 4)
    (folder / "config.json").write_text(json.dumps(config | {"image_size": [32, 64]}))
    with pytest.raises(UserError, match=r"image_size \[32, 64\], expected a square"):
        read_config(folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"model\.safetensors"):
        load_model(folder)


def test_dinov3_folders_read_back_and_fit_any_size(tmp_path):
    fields = {
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "image_size": 32,
        "patch_size": 8,
        "num_blocks": 2,
        "num_queries": 8,
        "num_upscale_blocks": 1,
    }
    module = new_model(transformers.EomtDinov3Config(**fields), ["sky", "road"])
    save_folder(module, module.state_dict(), tmp_path, 32, IMAGENET_MEAN, IMAGENET_STD)
    again, pixels = (
        build(from_folder(tmp_path), ["sky", "road"], image_size=64).eval(),
        torch.randn(1, 3, 64, 64),
    )
    assert again.config.image_size == 64
    for ours, stored in zip(module.eval()(pixels), again(pixels), strict=True):
        assert torch.equal(ours, stored)
