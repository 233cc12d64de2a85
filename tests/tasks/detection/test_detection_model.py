"""Building, loading and fitting D-FINE."""

import json
import logging

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import RTDetrConfig, RTDetrV2Config

from visionloop.engine.errors import UserError
from visionloop.tasks.detection.architectures import ARCHITECTURES, MODEL_NAMES
from visionloop.tasks.detection.export import load_folder
from visionloop.tasks.detection.initialization import initialize
from visionloop.tasks.detection.model import (
    build_model,
    check_image_size,
    load_model,
    new_config,
    new_model,
    read_config,
)
from visionloop.tasks.detection.network import DFineForObjectDetection
from visionloop.tasks.huggingface.hub import ModelSource
from visionloop.tasks.huggingface.loading import name_classes

# millions, with 80 classes: the recipe's table, measured on the classes of transformers
PARAMETERS = {
    "dfine-nano": 3.77,
    "dfine-small": 10.31,
    "dfine-medium": 19.56,
    "dfine-large": 31.24,
    "dfine-xlarge": 62.62,
}
TARGETS = [
    {
        "class_labels": torch.tensor([0, 2]),
        "boxes": torch.tensor([[0.3, 0.3, 0.2, 0.2], [0.6, 0.5, 0.3, 0.4]]),
    }
]


def from_folder(folder):
    return ModelSource("x", folder, weights=True)


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_released_size_has_its_published_number_of_parameters(name):
    config = new_config(name)
    name_classes(config, [str(i) for i in range(80)])
    with torch.device("meta"):
        module = DFineForObjectDetection(config)
    assert sum(parameter.numel() for parameter in module.parameters()) / 1e6 == pytest.approx(
        PARAMETERS[name], rel=0.01
    )


def test_all_names_of_released_weights_lead_to_their_architecture():
    names = {
        "ustc-community/dfine_x_coco": "dfine-xlarge",
        "dfine_m_obj365": "dfine-medium",
        "dfine-small-obj2coco": "dfine-small",
        "dfine_l_obj2coco_e25": "dfine-large",
        "dfine-nano": "dfine-nano",
        "ustc-community/dfine-nano-coco": "dfine-nano",
    }
    for name, size in names.items():
        assert MODEL_NAMES.find(name, True) == ModelSource(size, None, weights=False)


def test_bf16_is_for_backbone_and_encoder_alone(tiny_module):
    module, dtypes = tiny_module(), {}
    convolution = module.model.backbone.model.encoder.stages[3].downsample.convolution
    convolution.register_forward_hook(
        lambda layer, args, output: dtypes.update(backbone=output.dtype)
    )
    module.model.encoder.pan_blocks[1].conv4.conv.register_forward_hook(
        lambda layer, args, output: dtypes.update(encoder=output.dtype)
    )
    module.model.decoder.register_forward_hook(
        lambda layer, args, output: dtypes.update(decoder=output.intermediate_logits.dtype)
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = module(torch.rand(1, 3, 128, 128), labels=TARGETS)
    assert dtypes == {
        "backbone": torch.bfloat16,
        "encoder": torch.bfloat16,
        "decoder": torch.float32,
    }
    assert outputs.intermediate_logits.dtype == outputs.enc_topk_bboxes.dtype == torch.float32


def test_every_trained_parameter_gets_a_gradient_without_a_box(tiny_module):
    module = tiny_module()
    outputs = module(torch.rand(2, 3, 128, 128), labels=None)
    names = (
        "intermediate_logits",
        "intermediate_reference_points",
        "intermediate_predicted_corners",
        "enc_topk_logits",
        "enc_topk_bboxes",
    )
    sum(outputs[name].sum() for name in names).backward()
    assert [
        name
        for name, parameter in module.named_parameters()
        if parameter.requires_grad and parameter.grad is None
    ] == []


def test_random_weights_start_as_the_authors_draw_them(tiny_module):
    module = tiny_module()
    network, decoder = module.model, module.model.decoder
    outputs = module.eval()(torch.rand(2, 3, 128, 128))
    assert outputs.intermediate_logits.sigmoid().mean().item() == pytest.approx(
        0.01, abs=0.01
    )  # the prior of every class
    assert not outputs.intermediate_predicted_corners.any()  # distributions are flat
    assert (
        not network.enc_bbox_head.layers[-1].weight.any()
        and not decoder.pre_bbox_head.layers[-1].weight.any()
    )
    stem = (
        network.backbone.model.embedder.stem3.convolution.weight
    )  # [8, 16, 3, 3], torch's default: uniform to 1 / sqrt(fan in)
    assert stem.abs().max().item() == pytest.approx(1 / (16 * 9) ** 0.5, rel=0.05)
    assert not network.denoising_class_embed.weight[-1].any()
    first = module.state_dict()["model.encoder.fpn_blocks.0.conv1.conv.weight"].clone()
    initialize(module)
    assert not torch.equal(
        first, module.state_dict()["model.encoder.fpn_blocks.0.conv1.conv.weight"]
    )


def test_a_single_class_starts_from_a_tenth():
    module = build_model(ModelSource("tiny", None, weights=False), ["cell"])
    assert module.model.enc_score_head.bias.sigmoid().item() == pytest.approx(0.1)


def test_a_folder_of_other_classes_keeps_all_weights_but_the_rows_of_new_names(save_tiny):
    folder = save_tiny(["Traffic Light", "person", "dog"])
    old, new = (
        load_model(folder),
        build_model(from_folder(folder), ["person", "zebra", "traffic_light", "axolotl"]),
    )
    before, after = old.state_dict(), new.state_dict()
    for name, tensor in after.items():
        rows = "class_embed." in name or "enc_score_head" in name
        if rows:
            assert torch.equal(tensor[[2, 0]], before[name][[0, 1]]), name
            assert tensor[1].ne(before[name][2]).any() or name.endswith("bias"), name
        elif tensor.shape == before[name].shape:
            assert torch.equal(tensor, before[name]), name
    assert new.config.id2label == {0: "person", 1: "zebra", 2: "traffic_light", 3: "axolotl"}
    assert all(head.weight.shape[0] == 4 for head in (new.model.enc_score_head, *new.class_embed))
    assert new.model.denoising_class_embed.weight.shape[0] == 5


def test_the_same_classes_keep_every_weight(save_tiny):
    folder = save_tiny()
    stored, module = (
        load_model(folder).state_dict(),
        build_model(from_folder(folder), ["ant", "bee", "cat"]),
    )
    assert all(torch.equal(tensor, stored[name]) for name, tensor in module.state_dict().items())


def test_a_folder_reads_back_bit_for_bit_and_loads_with_transformers(save_tiny, tiny_module):
    folder = save_tiny()
    module = tiny_module()
    initialize(module)
    load_folder(module, folder)
    theirs = transformers.DFineForObjectDetection.from_pretrained(
        folder, use_safetensors=True
    ).state_dict()
    assert theirs.keys() == module.state_dict().keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in module.state_dict().items())
    assert json.loads((folder / "config.json").read_text())["architectures"] == [
        "DFineForObjectDetection"
    ]


@pytest.mark.parametrize(
    ("name", "trained"),
    [("dfine-nano", True), ("dfine-medium", True), ("dfine-large", False), ("tiny", True)],
)
def test_the_backbones_norms_are_trained_or_frozen_as_the_authors_train_that_size(name, trained):
    config = new_config("tiny")
    config.backbone_config.use_learnable_affine_block = ARCHITECTURES[name][0][
        "use_learnable_affine_block"
    ]
    assert new_model(config, ["a", "b"]).config.freeze_backbone_batch_norms is not trained
    assert new_model(config, ["a", "b"], "frozen").config.freeze_backbone_batch_norms
    assert not new_model(config, ["a", "b"], "trained").config.freeze_backbone_batch_norms


def test_frozen_norms_hold_the_stem_too(save_tiny):
    module = build_model(from_folder(save_tiny()), ["ant", "bee", "cat"], backbone_bn="frozen")
    assert not any(
        parameter.requires_grad for parameter in module.model.backbone.model.embedder.parameters()
    )
    assert not any("normalization" in name for name, _ in module.model.backbone.named_parameters())


def test_the_scale_of_the_distributions_is_read_from_the_weights(save_tiny, caplog):
    folder = save_tiny()
    weights = load_file(folder / "model.safetensors")
    weights["model.decoder.reg_scale"] = torch.tensor([8.0])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with caplog.at_level(logging.WARNING):
        module = load_model(folder)
    assert module.config.reg_scale == 8.0 and "reg_scale" in caplog.text


def test_broken_early_nano_weights_are_warned_of(save_tiny, caplog):
    folder = save_tiny()
    weights = load_file(folder / "model.safetensors")
    weights["model.decoder.layers.0.self_attn.v_proj.weight"] = weights[
        "model.decoder.layers.0.self_attn.k_proj.weight"
    ].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with caplog.at_level(logging.WARNING):
        load_model(folder)
    assert "equal key and value projections" in caplog.text


@pytest.mark.parametrize("config", [RTDetrConfig, RTDetrV2Config])
def test_relatives_of_d_fine_are_refused(config, tmp_path):
    config().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="expected d_fine") as caught:
        read_config(tmp_path)
    assert caught.value.file == str(tmp_path)


def test_a_missing_weight_is_named(save_tiny):
    folder = save_tiny()
    weights = load_file(folder / "model.safetensors")
    del weights["model.enc_output.0.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"1 missing weights, first model\.enc_output\.0\.weight"):
        load_model(folder)


def test_sizes_that_the_model_cannot_process_are_refused():
    config = new_config("tiny")
    check_image_size(config, 256)
    with pytest.raises(UserError, match="multiple of 32"):
        check_image_size(config, 250)
    with pytest.raises(UserError, match=r"84 feature positions.* 100 queries"):
        check_image_size(config, 64)
