"""Recipes, parameter groups, gradient checkpointing, input sizes and the cap on denoising."""

import random

import pytest
import torch
from torch import nn

from visionloop.datasets.synthetic.detection import write_detection
from visionloop.engine.errors import UserError
from visionloop.engine.train import resolve_settings
from visionloop.tasks.detection.config import DetectionConfig
from visionloop.tasks.detection.data import cap_targets, draw_size, multi_scale_sizes, resize_batch
from visionloop.tasks.detection.model import grad_checkpointing_blocks, parameter_groups
from visionloop.tasks.detection.recipes import MICRO_BATCH, resolve_defaults, size_of
from visionloop.tasks.detection.task import DetectionTask


def resolved(**flags):
    return {name: setting.value for name, setting in resolve_settings(DetectionTask, flags).items()}


def test_sizes_train_at_the_authors_learning_rates_scaled_by_the_batch():
    values = resolved(model="dfine-medium", batch_size=16)
    assert values["preset"] == "finetune" and values["lr"] == pytest.approx(2.5e-4 / 2)
    assert values["lr"] * values["backbone_lr_scale"] == pytest.approx(2.5e-5 / 2)
    assert (values["clip_grad"], values["schedule"], values["multi_scale"], values["epochs"]) == (
        0.1,
        "constant",
        6,
        56,
    )
    values = resolved(model="ustc-community/dfine_x_coco", from_scratch=True)
    assert (
        values["preset"] == "scratch"
        and values["lr"] == pytest.approx(2.5e-4)
        and values["strong_share"] == pytest.approx(0.9)
    )


def test_every_size_has_a_micro_batch_and_a_warm_up_that_short_runs_shorten():
    for size in MICRO_BATCH:
        assert resolve_defaults({"model": size}, 100_000) == {
            "warmup_steps": 500,
            "micro_batch": MICRO_BATCH[size],
        }
    assert resolve_defaults({"model": "tiny"}, 1000)["warmup_steps"] == 50


def test_the_size_of_a_local_folder_follows_from_its_widths(save_tiny):
    assert size_of(str(save_tiny())) == "tiny"
    assert size_of("ustc-community/dfine_l_coco") == "dfine-large"


def test_layer_decay_is_refused():
    with pytest.raises(UserError, match="--layer-decay"):
        resolved(model="tiny", layer_decay=0.9)


def test_norms_and_biases_are_not_decayed_and_the_backbone_has_its_own_learning_rate(tiny_module):
    module = tiny_module()
    groups = {group["name"]: group for group in parameter_groups(module, 0.1)}
    assert set(groups) == {"backbone", "backbone_no_decay", "detector", "detector_no_decay"}
    assert {name: group["lr_scale"] for name, group in groups.items()} == {
        "backbone": 0.1,
        "backbone_no_decay": 0.1,
        "detector": 1.0,
        "detector_no_decay": 1.0,
    }
    plain = {
        id(parameter)
        for name in ("backbone_no_decay", "detector_no_decay")
        for parameter in groups[name]["params"]
    }
    for layer in module.modules():
        if isinstance(layer, nn.LayerNorm | nn.BatchNorm2d):
            assert all(id(parameter) in plain for parameter in layer.parameters())
        if isinstance(layer, nn.Linear | nn.Conv2d):
            assert id(layer.weight) not in plain
            assert layer.bias is None or id(layer.bias) in plain
    listed = [id(parameter) for group in groups.values() for parameter in group["params"]]
    assert (
        len(listed)
        == len(set(listed))
        == sum(parameter.requires_grad for parameter in module.parameters())
    )


def test_large_models_decay_their_biases_outside_the_backbone(tiny_module):
    groups = {
        group["name"]: group for group in parameter_groups(tiny_module(), 0.1, decay_biases=True)
    }
    norms = nn.LayerNorm, nn.BatchNorm2d
    ids = {
        id(p)
        for layer in tiny_module().modules()
        if isinstance(layer, norms)
        for p in layer.parameters()
    }
    assert len(groups["detector_no_decay"]["params"]) < len(ids)


def test_stages_of_the_backbone_are_recomputed_only_with_frozen_norms(tiny_module):
    module = tiny_module()
    assert grad_checkpointing_blocks(module) == list(module.model.decoder.layers)
    module.config.freeze_backbone_batch_norms = True
    assert len(grad_checkpointing_blocks(module)) == len(module.model.decoder.layers) + 4


def test_sizes_are_the_authors_around_640_and_one_alone_without_scales():
    assert multi_scale_sizes(640, 2) == [480, 512, 544, 576, 608, 672, 704, 736, 768, 800, 640, 640]
    assert multi_scale_sizes(256, 0) == [256]
    random.seed(0)
    assert {draw_size(multi_scale_sizes(256, 1)) for _ in range(100)} == {192, 224, 256, 288, 320}


def test_resizing_a_batch_to_its_own_size_changes_nothing():
    pixels = torch.rand(2, 3, 64, 64)
    assert resize_batch(pixels, 64) is pixels
    assert resize_batch(pixels, 96).shape == (2, 3, 96, 96)


def targets_of(*numbers):
    return [{"class_labels": torch.arange(n), "boxes": torch.rand(n, 4)} for n in numbers]


def test_crowded_images_lend_some_of_their_boxes_to_denoising():
    targets = targets_of(600, 3, 0)
    capped = cap_targets(targets, 100)
    assert [len(target["boxes"]) for target in capped] == [100, 3, 0]
    assert torch.equal(capped[0]["boxes"], targets[0]["boxes"][capped[0]["class_labels"]])
    assert len(targets[0]["boxes"]) == 600


def test_nothing_is_denoised_without_boxes_or_when_it_is_off():
    assert cap_targets(targets_of(0, 0), 100) is None
    assert cap_targets(targets_of(2), 0) is None


def test_six_hundred_boxes_cost_no_more_denoising_queries_than_a_hundred(tiny_module):
    module = tiny_module()
    num_queries = []
    module.model.decoder.register_forward_hook(
        lambda layer, args, output: num_queries.append(output.intermediate_logits.shape[2])
    )
    for number in (100, 600):
        boxes = torch.rand(number, 4) * 0.2 + 0.3
        targets = [{"class_labels": torch.zeros(number, dtype=torch.int64), "boxes": boxes}]
        module(torch.rand(1, 3, 128, 128), labels=cap_targets(targets, 100))
    assert num_queries == [300, 300]


def test_the_last_part_of_the_run_has_one_size_and_weak_augmentation(tmp_path):
    write_detection(tmp_path, 0, images={"train": 2, "val": 2})
    task = DetectionTask(
        DetectionConfig(
            data=str(tmp_path), model="tiny", from_scratch=True, multi_scale=1, strong_share=0.75
        )
    )
    drawn, strong = [], []
    for step in range(40):
        random.seed(step)
        task.before_step(None, step, 40)
        task.before_sample(step, 40)
        drawn.append(task.step_size)
        strong.append(task.train_transform.strong)
    assert len(set(drawn[:30])) == 5 and set(drawn[30:]) == {None}
    assert strong == [True] * 30 + [False] * 10
    assert task.reload_best_at(40) == 30
