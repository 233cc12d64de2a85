"""Every supported model type, tiny: trains a step, exports and reloads with the same logits."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    BeitConfig,
    ConvNextConfig,
    ConvNextV2Config,
    DeiTConfig,
    Dinov2Config,
    MobileNetV2Config,
    ResNetConfig,
    SwinConfig,
    Swinv2Config,
    ViTConfig,
)

from visionloop.engine.config.train_config import TrainConfig
from visionloop.engine.errors import UserError
from visionloop.engine.grad_checkpointing import apply_grad_checkpointing
from visionloop.engine.optim import build_optimizer
from visionloop.tasks.classification.config import ClassificationConfig
from visionloop.tasks.classification.task import ClassificationTask

TRANSFORMER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
WINDOWS = {
    "image_size": 32,
    "patch_size": 2,
    "embed_dim": 16,
    "depths": [1, 1],
    "num_heads": [2, 2],
    "window_size": 4,
}
STAGES = {"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1], "image_size": 32}
KINDS = {
    "vit": lambda: ViTConfig(**TRANSFORMER, intermediate_size=64),
    "deit": lambda: DeiTConfig(
        **TRANSFORMER, intermediate_size=64, architectures=["DeiTForImageClassification"]
    ),
    "beit": lambda: BeitConfig(**TRANSFORMER, intermediate_size=64),
    "swin": lambda: SwinConfig(**WINDOWS),
    "swinv2": lambda: Swinv2Config(**WINDOWS),
    "convnext": lambda: ConvNextConfig(**STAGES),
    "convnextv2": lambda: ConvNextV2Config(**STAGES),
    "dinov2": lambda: Dinov2Config(**TRANSFORMER, mlp_ratio=2),
    "resnet": lambda: ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"
    ),
    "mobilenet_v2": lambda: MobileNetV2Config(depth_multiplier=0.25, image_size=32),
}
WITHOUT_RECOMPUTING = ("convnext", "convnextv2", "resnet", "mobilenet_v2")


@pytest.fixture
def make_task(save_model, data):
    """make_task(kind, **settings) -> task that starts from a model with other classes."""

    def make(kind, **settings):
        folder = save_model(KINDS[kind](), ("one", "two"), name=kind)
        return ClassificationTask(
            ClassificationConfig(data=str(data), model=str(folder), **settings)
        )

    return make


def first_batch(task, samples=6):
    train, _ = task.build_datasets()
    return task.collate(
        [train[i] | {"sample_id": torch.tensor(i)} for i in range(0, 4 * samples, 4)], 0, 0
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_trains_a_step_exports_and_reloads_with_the_same_logits(kind, make_task, tmp_path):
    task = make_task(kind, drop_path=0.1, layer_decay=0.7)
    torch.manual_seed(0)
    module = task.build_model()
    optimizer = build_optimizer(task.parameter_groups(module), module, TrainConfig())
    batch = first_batch(task)
    loss = task.loss(module, batch, task.count_normalizers([batch]))["loss"]
    loss.backward()
    without = [
        name
        for name, parameter in module.named_parameters()
        if parameter.requires_grad and parameter.grad is None
    ]
    assert without == []  # DistributedDataParallel would wait for them
    for group in optimizer.param_groups:
        group["lr"] = 1e-3 * group["lr_scale"]
    optimizer.step()
    module.eval()

    task.save_best(module, module.state_dict(), tmp_path / "best", {"accuracy": 0.5})
    again = AutoModelForImageClassification.from_pretrained(tmp_path / "best")
    processor = AutoImageProcessor.from_pretrained(tmp_path / "best")
    _, val = task.build_datasets()
    image = Image.open(val.name(5))
    sample = task.collate_eval([val[5] | {"sample_id": torch.tensor(5)}])
    with torch.no_grad():
        ours = task.predict(module, sample)["logits"]
        theirs = again(**processor(image, return_tensors="pt")).logits
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert again.config.id2label == {0: "ant", 1: "bee", 2: "cat"}

    reloaded_task, reloaded = ClassificationTask.load_trained(tmp_path / "best")
    assert all(
        torch.equal(value, reloaded.state_dict()[name])
        for name, value in module.state_dict().items()
    )
    assert reloaded_task.classes == ("ant", "bee", "cat")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in WITHOUT_RECOMPUTING])
def test_recomputing_with_drop_path_changes_no_gradient(kind, make_task):
    task = make_task(kind, drop_path=0.3)
    batch, gradients = first_batch(task), []
    for recompute in (False, True):
        torch.manual_seed(0)
        module = task.build_model()
        if recompute:
            apply_grad_checkpointing(task.grad_checkpointing_blocks(module))
        torch.manual_seed(1)
        task.loss(module, batch, task.count_normalizers([batch]))["loss"].backward()
        gradients.append(
            [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
        )
    assert all(torch.equal(first, second) for first, second in zip(*gradients, strict=True))


@pytest.mark.parametrize("kind", WITHOUT_RECOMPUTING)
def test_recomputing_is_refused_where_there_are_no_transformer_layers(kind, make_task):
    task = make_task(kind)
    with pytest.raises(UserError, match=f"not supported for {kind}"):
        task.grad_checkpointing_blocks(task.build_model())


@pytest.mark.parametrize("kind", KINDS)
def test_freezing_the_backbone_leaves_the_head_alone_to_learn(kind, make_task):
    task = make_task(kind)
    module = task.build_model()
    task.backbone(module).requires_grad_(False)
    learning = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
    assert {
        parameter.shape[0] for name, parameter in module.named_parameters() if name in learning
    } == {3}
    assert len(learning) == 2


class BicubicBackwards(TorchDispatchMode):
    """Counts the backward of bicubic interpolation, which has no fixed order of sums on CUDA."""

    number = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.number += "upsample_bicubic2d_backward" in str(function)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("image_size", [32, 48])
@pytest.mark.parametrize("kind", ["vit", "dinov2"])
def test_an_interpolation_of_trained_positions_in_each_step_is_named_as_nondeterministic(
    kind, image_size, make_task
):
    task = make_task(kind, image_size=image_size)
    module = task.build_model()
    batch = first_batch(task)
    with BicubicBackwards() as backwards:
        task.loss(module, batch, task.count_normalizers([batch]))["loss"].backward()
    named = ("upsample_bicubic2d",) if backwards.number else ()
    assert task.nondeterministic_ops(module) == named
    task.backbone(module).requires_grad_(False)
    assert task.nondeterministic_ops(module) == ()


def test_every_parameter_is_in_one_group_and_the_scale_of_the_patch_embedding_is_the_smallest(
    make_task,
):
    task = make_task("vit", layer_decay=0.5)
    module = task.build_model()
    groups = task.parameter_groups(module)
    listed = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(listed) == sorted(id(parameter) for parameter in module.parameters())
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    scale = {
        names[id(parameter)]: group["lr_scale"] for group in groups for parameter in group["params"]
    }
    decay = {
        names[id(parameter)]: group["weight_decay"]
        for group in groups
        for parameter in group["params"]
    }
    assert (
        scale["vit.embeddings.patch_embeddings.projection.weight"]
        == scale["vit.embeddings.cls_token"]
        == 0.5**3
    )
    assert scale["vit.layers.0.mlp.fc1.weight"] == 0.5**2
    assert scale["classifier.weight"] == scale["vit.layernorm.weight"] == 1
    undecayed = {name for name, value in decay.items() if value == 0}
    assert {"vit.embeddings.cls_token", "vit.embeddings.position_embeddings"} <= undecayed
    assert all(("bias" in name or "norm" in name or "embeddings." in name) for name in undecayed)
    assert "vit.embeddings.patch_embeddings.projection.weight" not in undecayed


@pytest.mark.parametrize("kind", KINDS)
def test_layer_decay_falls_from_the_head_to_the_stem(kind, make_task):
    module = make_task(kind).build_model()
    task = make_task(kind, layer_decay=0.5)
    groups = task.parameter_groups(module)
    scales = {id(parameter): group["lr_scale"] for group in groups for parameter in group["params"]}
    in_order = [
        scales[id(parameter)] for parameter in module.parameters() if parameter.requires_grad
    ]
    assert np.all(np.diff(in_order) >= 0)
    assert in_order[-1] == 1 > in_order[0]
