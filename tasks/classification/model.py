"""Any image classifier of the library that maps pixel_values to logits: built at random or loaded from a folder."""

import logging

import torch
from torchvision.ops import StochasticDepth
from transformers import AutoModelForImageClassification, ViTConfig

from visionloop.engine.errors import UserError
from visionloop.tasks.classification.attention import KINDS
from visionloop.tasks.classification.fused_attention import NAME as ATTENTION
from visionloop.tasks.classification.head import find_heads, fit_head
from visionloop.tasks.classification.mimetic import mimetic_init
from visionloop.tasks.classification.positions import check_patch, set_image_size
from visionloop.tasks.classification.sources import ARCHITECTURES
from visionloop.tasks.library import load_config, load_weights, name_classes

log = logging.getLogger(__name__)

# kinds whose auto class wants more than pixel_values, or answers with something else
OTHER_CONTRACT = ("clip", "metaclip_2", "perceiver", "shieldgemma2", "siglip", "siglip2", "timm_wrapper")
# What a checkpoint may lack or have too much of: parts around the trunk, never of it.
AROUND_THE_TRUNK = ("pooler.", "mask_token", "lm_head.", "decoder.", "classifier.")


def build_model(source, classes, *, image_size=None, drop_path=0.0, zero_head=False, init="library"):
    """The classifier of `source` with one output per name in `classes`, in fp32 on the CPU, in train mode.

    image_size: side of the pictures, None: the model's own; drop_path: rate of the last layer; init: of random weights.
    """
    if source.weights:
        module = load_model(source.folder, drop_path=drop_path)
        if image_size:
            set_image_size(module, image_size)
        fit_head(module, classes, zero=zero_head)
    else:
        module = new_model(source, classes, image_size=image_size, drop_path=drop_path)
        if init == "mimetic":
            mimetic_init(module)
    set_drop_path(module, drop_path)
    if module.config.model_type in KINDS and module.config._attn_implementation == "sdpa":
        module.set_attn_implementation(ATTENTION)
    for name, parameter in module.named_parameters():
        if name.endswith("mask_token"):  # for pretraining: never gets a gradient here, which DDP would wait for
            parameter.requires_grad_(False)
    return module.train()


def new_model(source, classes, *, image_size=None, drop_path=0.0):
    """A module with random weights: one of our architectures, or the config of a folder."""
    if source.folder is None:
        hidden, layers, heads, mlp, patch, size = ARCHITECTURES[source.name]
        config = ViTConfig(
            hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=mlp,
            patch_size=patch, image_size=size,
        )
    else:
        config = read_config(source.folder)
    if image_size:
        check_patch(config, image_size)
        config.image_size = image_size
    if hasattr(config, "drop_path_rate"):
        config.drop_path_rate = drop_path
    config.dtype = torch.float32
    # a kind with two classifiers (deit) fails on None; an empty list means the plain one
    config.architectures = config.architectures or []
    name_classes(config, classes)
    return AutoModelForImageClassification.from_config(config, trust_remote_code=False)


def load_model(folder, *, drop_path=0.0):
    """The module of a Hugging Face folder with its own classes and image size, in fp32. Every weight of the trunk must be there."""
    config = read_config(folder)
    if hasattr(config, "drop_path_rate"):
        config.drop_path_rate = drop_path
    return load_weights(AutoModelForImageClassification, folder, config, _is_around_the_trunk)


def _is_around_the_trunk(module, name):
    heads = tuple(head + "." for head, _ in find_heads(module))
    return name.startswith(heads) or any(part in name for part in AROUND_THE_TRUNK)


def own_image_size(source):
    """Side in pixels of the pictures that a source was made for; 224 where its config has none (resnet)."""
    if source.folder is None:
        return ARCHITECTURES[source.name][-1]
    size = getattr(read_config(source.folder), "image_size", 224)
    return size if isinstance(size, int) else size[0]


def read_config(folder):
    """The config of a model folder. Raises UserError when it is not one of an image classifier."""
    config = load_config(folder)
    classifier = type(config) in AutoModelForImageClassification._model_mapping
    if not classifier or config.model_type in OTHER_CONTRACT:
        raise UserError(
            f"--model {folder}: a {config.model_type}, of which no classifier maps pixel_values alone to logits",
            field="model", file=str(folder),
        )
    return config


def set_drop_path(module, rate):
    """Stochastic depth (arXiv:1603.09382), linear from 0 at the first layer to `rate` at the last.

    Kinds with a rate in their config got it when they were built. ViT and DeiT have none, but both residual branches of a layer go
    through `layer.dropout`, and they have no hidden dropout of their own, so this is exact.
    """
    config = module.config
    if rate == 0 or hasattr(config, "drop_path_rate"):
        return
    if config.model_type not in ("vit", "deit") or config.hidden_dropout_prob:
        log.warning("--drop-path: %s has no place for it; going on without", config.model_type)
        return
    layers = module.base_model.layers
    for i, layer in enumerate(layers):
        layer.dropout = StochasticDepth(rate * i / max(1, len(layers) - 1), mode="row")
