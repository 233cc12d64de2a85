"""Released checkpoints: their sizes, and loading a hub folder into a fitted model.

No hub is asked. Sizes: ViT, table 1 of arXiv:2010.11929 and `google/*` config.json; DeiT, table 1
of arXiv:2012.12877 (5, 22 and 86 million). A folder in the hub's layout is what `save_pretrained`
writes: the key names of older versions.
"""

import logging

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForImageClassification, ViTConfig

from visionloop.tasks.classification.config import ClassificationConfig
from visionloop.tasks.classification.processor import EvalTransform
from visionloop.tasks.classification.task import ClassificationTask

# hidden, layers, heads, mlp, image size, millions of parameters with 1000 classes
CHECKPOINTS = {
    "google/vit-base-patch16-224": (768, 12, 12, 3072, 224, 86.57),
    "google/vit-base-patch16-384": (768, 12, 12, 3072, 384, 86.86),
    "google/vit-large-patch16-224": (1024, 24, 16, 4096, 224, 304.33),
    "facebook/deit-tiny-patch16-224": (192, 12, 3, 768, 224, 5.72),
    "facebook/deit-small-patch16-224": (384, 12, 6, 1536, 224, 22.05),
    "facebook/deit-base-patch16-224": (768, 12, 12, 3072, 224, 86.57),
}
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def config_of(name, narrow=1):
    hidden, layers, heads, mlp, size, _ = CHECKPOINTS[name]
    return ViTConfig(
        hidden_size=hidden // narrow,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=mlp // narrow,
        image_size=size,
        patch_size=16,
        num_labels=1000,
    )


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_config_has_the_published_number_of_parameters(name):
    with torch.device("meta"):
        module = AutoModelForImageClassification.from_config(config_of(name))
    assert sum(parameter.numel() for parameter in module.parameters()) / 1e6 == pytest.approx(
        CHECKPOINTS[name][-1], abs=0.01
    )


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_only_the_head_is_new_after_loading_a_hub_folder(name, data, tmp_path):
    logging.getLogger("transformers").setLevel(logging.ERROR)
    narrow = 16 if name != "facebook/deit-tiny-patch16-224" else 8
    torch.manual_seed(0)
    released = AutoModelForImageClassification.from_config(config_of(name, narrow))
    released.save_pretrained(tmp_path / "hub")
    style = IMAGENET if name.startswith("facebook") else {}
    EvalTransform(
        size=config_of(name).image_size, resize=(config_of(name).image_size,) * 2, **style
    ).write(tmp_path / "hub")
    with safe_open(tmp_path / "hub" / "model.safetensors", "pt") as file:
        assert "vit.encoder.layer.0.attention.attention.query.weight" in file.keys()  # noqa: SIM118 - not a dict

    task = ClassificationTask(ClassificationConfig(data=str(data), model=str(tmp_path / "hub")))
    module = task.build_model()
    old, new = released.state_dict(), module.state_dict()
    assert old.keys() == new.keys()
    changed = {
        key
        for key in old
        if old[key].shape != new[key].shape or not torch.equal(old[key], new[key])
    }
    assert changed == {"classifier.weight", "classifier.bias"}
    assert task.eval_transform.size == CHECKPOINTS[name][4]
    assert task.eval_transform.mean == style.get("mean", (0.5, 0.5, 0.5))
