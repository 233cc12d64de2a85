"""A cache of the Hugging Face hub, with tiny models under the ids of released ones."""

import torch
from transformers import AutoModelForImageClassification, ViTConfig

from visionloop.tasks.classification.processor import EvalTransform
from visionloop.tasks.detection import export as detection_folder
from visionloop.tasks.detection import model as detection
from visionloop.tasks.huggingface.loading import quiet_transformers
from visionloop.tasks.segmentation import export as segmentation_folder
from visionloop.tasks.segmentation import model as segmentation
from visionloop.tasks.segmentation.export import IMAGENET_MEAN, IMAGENET_STD
from visionloop.tasks.super_resolution import export as super_resolution_folder
from visionloop.tasks.super_resolution import model as super_resolution

COMMIT = "0" * 40
SMALL_EOMT = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 32,
    "num_queries": 8,
}

# {hub id: number of classes}
SEGMENTERS = {
    "tue-mps/ade20k_semantic_eomt_large_512": 3,
    "tue-mps/coco_instance_eomt_large_640": 80,
    "tue-mps/coco_panoptic_eomt_large_640": 133,
}


def fill_hub(home):
    """Write a small random model of each task into the cache, under the id of a released one.

    home: the folder that HF_HOME will be.
    """
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
        num_labels=10,
    )
    folder = snapshot(home, "google/vit-base-patch16-224")
    with quiet_transformers():
        AutoModelForImageClassification.from_config(config).save_pretrained(folder)
    EvalTransform().at_size(32).write(folder)

    module = detection.new_model(detection.new_config("tiny"), ["ant", "bee", "cat"])
    detection_folder.save_folder(
        module, module.state_dict(), snapshot(home, "ustc-community/dfine-small-coco"), 128
    )

    for hub_id, classes in SEGMENTERS.items():
        config = segmentation.new_config("tiny")
        for name, value in SMALL_EOMT.items():
            setattr(config, name, value)
        module = segmentation.new_model(config, [f"class {i}" for i in range(classes)])
        folder, is_semantic = snapshot(home, hub_id), "semantic" in hub_id
        statistics = IMAGENET_MEAN, IMAGENET_STD
        segmentation_folder.save_folder(
            module, module.state_dict(), folder, 32, *statistics, whole_images=not is_semantic
        )

    module = super_resolution.new_model(super_resolution.new_config("tiny"))
    super_resolution_folder.save_folder(
        module, module.state_dict(), snapshot(home, "caidas/swin2SR-classical-sr-x2-64")
    )


def snapshot(home, hub_id):
    """Create and return the folder of a model in the cache."""
    model = home / "hub" / f"models--{hub_id.replace('/', '--')}"
    (model / "refs").mkdir(parents=True)
    (model / "refs/main").write_text(COMMIT)
    folder = model / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    return folder
