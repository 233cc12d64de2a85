"""Image classifiers of transformers that map pixel_values to logits.

A model is built with random weights or loaded from a Hugging Face folder; then its head is fitted
to the classes of the data.
"""

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import nn
from torchvision.ops import StochasticDepth
from transformers import (
    AutoModelForImageClassification,
    PreTrainedConfig,
    PreTrainedModel,
    ViTConfig,
)

from visionloop.engine.errors import UserError
from visionloop.engine.optim import ParameterGroup, default_parameter_groups
from visionloop.engine.system.kernels import LayerWidths
from visionloop.tasks.classification.architectures import ARCHITECTURES
from visionloop.tasks.classification.attention import ATTENTION
from visionloop.tasks.classification.attention_rollout import MODEL_TYPES as SELF_ATTENTION
from visionloop.tasks.classification.positions import set_image_size
from visionloop.tasks.huggingface.hub import ModelSource
from visionloop.tasks.huggingface.loading import (
    class_names,
    load_config,
    load_weights,
    name_classes,
)
from visionloop.tasks.huggingface.mimetic_init import mimetic_embeddings, mimetic_layers
from visionloop.tasks.huggingface.positions import check_patch

log = logging.getLogger(__name__)

# model types whose auto class takes more than pixel_values, or returns something else than logits
UNSUPPORTED = (
    "clip", "metaclip_2", "perceiver", "shieldgemma2", "siglip", "siglip2", "timm_wrapper",
)  # fmt: skip
# parts that a checkpoint may lack, or have too many of; never one of the trunk
OUTSIDE_TRUNK = ("pooler.", "mask_token", "lm_head.", "decoder.", "classifier.")
# parameters without weight decay, besides norms and biases
NO_DECAY = (
    "cls_token", "distillation_token", "mask_token", "position_embedding",
    "relative_position_bias_table",
)  # fmt: skip
# model types whose layers have the names of LAYER
TRANSFORMERS = (
    "vit", "deit", "beit", "data2vec-vision", "dinov2", "dinov2_with_registers", "ijepa", "vit_msn",
)  # fmt: skip
# names in memory: `vit.layers.3.mlp.fc1.weight`, `dinov2.encoder.layer.3.norm1.weight`; files keep
# the names of older versions
LAYER = re.compile(r"^\w+\.(?:encoder\.)?layers?\.(\d+)\.")
# convolutional model types that are faster with channels last on a CPU too: 0.65 of a step's time.
# ConvNeXt takes as long as before, ResNet 0.85 (bottlenecks) to 1.8 times (basic blocks)
DEPTHWISE = ("mobilenet_v1", "mobilenet_v2")
# model types with stages of linear layers
LINEAR_STAGES = ("swin", "swinv2", "convnext", "convnextv2")
# blocks of model types with stages, in the order of the forward: layer decay falls from block to
# block
STAGED_BLOCKS = (
    "SwinLayer", "Swinv2Layer", "ConvNextLayer", "ConvNextV2Layer", "ResNetBasicLayer",
    "ResNetBottleNeckLayer", "MobileNetV2InvertedResidual",
)  # fmt: skip

Init = Literal["transformers", "mimetic"]


def build_model(
    source: ModelSource,
    classes: Sequence[str],
    *,
    image_size: int | None = None,
    drop_path: float = 0.0,
    zero_head: bool = False,
    init: Init = "transformers",
) -> PreTrainedModel:
    """Build the classifier of a source, in fp32 on the CPU, in train mode.

    Args:
        source: an architecture, or a folder whose weights are loaded or not.
        classes: class names; the head gets one output for each.
        image_size: side of the images in pixels; None keeps the model's own.
        drop_path: stochastic depth rate of the last layer.
        zero_head: initialize a new head with zeros.
        init: initialization of random weights.
    """
    if source.weights:
        assert source.folder is not None, "weights come from a folder"
        module = load_model(source.folder, drop_path=drop_path)
        if image_size:
            set_image_size(module, image_size)
        fit_head(module, classes, zero=zero_head)
    else:
        module = new_model(source, classes, image_size=image_size, drop_path=drop_path)
        if init == "mimetic":
            mimetic_init(module)
    set_drop_path(module, drop_path)
    if module.config.model_type in SELF_ATTENTION and module.config._attn_implementation == "sdpa":
        module.set_attn_implementation(ATTENTION)
    for name, parameter in module.named_parameters():
        # used in pretraining alone: it never gets a gradient here, which DDP would wait for
        if name.endswith("mask_token"):
            parameter.requires_grad_(False)
    return module.train()


def new_model(
    source: ModelSource,
    classes: Sequence[str],
    *,
    image_size: int | None = None,
    drop_path: float = 0.0,
) -> PreTrainedModel:
    """Build a classifier with random weights, of an architecture or of a folder's config."""
    if source.folder is None:
        architecture = ARCHITECTURES[source.name]
        config = ViTConfig(
            hidden_size=architecture.hidden_size,
            num_hidden_layers=architecture.num_layers,
            num_attention_heads=architecture.num_heads,
            intermediate_size=architecture.mlp_size,
            patch_size=architecture.patch_size,
            image_size=architecture.image_size,
        )
    else:
        config = read_config(source.folder)
    if image_size:
        check_patch(config, image_size)
        config.image_size = image_size
    if hasattr(config, "drop_path_rate"):
        config.drop_path_rate = drop_path
    config.dtype = torch.float32
    # a type with two classifiers (deit) fails on None; an empty list means the plain one
    config.architectures = config.architectures or []
    name_classes(config, classes)
    return AutoModelForImageClassification.from_config(config, trust_remote_code=False)


def load_model(folder: str | Path, *, drop_path: float = 0.0) -> PreTrainedModel:
    """Load the classifier of a Hugging Face folder in fp32, with its own classes and image size.

    Raises:
        UserError: a weight of the trunk is missing.
    """
    config = read_config(folder)
    if hasattr(config, "drop_path_rate"):
        config.drop_path_rate = drop_path
    return load_weights(AutoModelForImageClassification, folder, config, _is_outside_trunk)


def _is_outside_trunk(module: PreTrainedModel, name: str) -> bool:
    heads = tuple(head + "." for head, _ in find_heads(module))
    return name.startswith(heads) or any(part in name for part in OUTSIDE_TRUNK)


def read_config(folder: str | Path) -> PreTrainedConfig:
    """Read the config of a model folder.

    Raises:
        UserError: it is not the config of an image classifier.
    """
    config = load_config(folder)
    is_classifier = type(config) in AutoModelForImageClassification._model_mapping
    if not is_classifier or config.model_type in UNSUPPORTED:
        raise UserError(
            f"--model {folder}: a {config.model_type}, of which no classifier maps pixel_values"
            " alone to logits",
            field="model",
            file=str(folder),
        )
    return config


def own_image_size(source: ModelSource) -> int:
    """Return the image side of a source in pixels; 224 where its config has none (resnet)."""
    if source.folder is None:
        return ARCHITECTURES[source.name].image_size
    size = getattr(read_config(source.folder), "image_size", 224)
    return size if isinstance(size, int) else size[0]


def model_type(source: ModelSource) -> str:
    """Return the type of a source's network, as transformers names it."""
    return "vit" if source.folder is None else str(read_config(source.folder).model_type)


def layer_widths(source: ModelSource) -> LayerWidths:
    """Return the channels of the layers that a source computes in; of stages those of the first."""
    if source.folder is None:
        return LayerWidths(ARCHITECTURES[source.name].hidden_size, conv=None)
    config = read_config(source.folder)
    widths = [getattr(config, name, None) for name in ("embed_dim", "hidden_size", "hidden_sizes")]
    width = next((width for width in widths if width), LayerWidths.linear)
    is_convolutional = config.model_type not in (*TRANSFORMERS, *LINEAR_STAGES)
    return LayerWidths(
        width if isinstance(width, int) else width[0],
        conv=LayerWidths.conv if is_convolutional else None,
    )


def find_heads(module: PreTrainedModel) -> list[tuple[str, nn.Linear]]:
    """Return (name, layer) of each Linear outside the trunk with one output per class.

    There is one in all model types but the distilled DeiT, which averages two. Its name differs
    between models (`classifier`, `classifier.1`).
    """
    trunk = {id(layer) for layer in module.base_model.modules()}
    heads = [
        (name, layer)
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear)
        and id(layer) not in trunk
        and layer.out_features == module.config.num_labels
    ]
    assert heads, (
        f"{type(module).__name__} has no Linear with {module.config.num_labels} outputs"
        " outside its trunk"
    )
    return heads


def fit_head(
    module: PreTrainedModel, classes: Sequence[str], *, zero: bool = False
) -> Literal["kept", "carried", "new"]:
    """Give a model one output per class; the trunk stays equal bit for bit.

    The same names in the same order keep the head. Another order, or a part of them, reuses the
    rows by name. Anything else starts a new head: a truncated normal of 0.02, as transformers
    draws it, or zeros.
    """
    old_classes = class_names(module.config)
    if old_classes == list(classes):
        return "kept"
    rows = None
    if old_classes is not None and set(classes) <= set(old_classes):
        rows = torch.tensor([old_classes.index(name) for name in classes])
    for name, old in find_heads(module):
        parent, _, attribute = name.rpartition(".")
        setattr(module.get_submodule(parent), attribute, _new_head(old, len(classes), rows, zero))
    name_classes(module.config, classes)
    module.num_labels = len(classes)
    return "new" if rows is None else "carried"


@torch.no_grad()
def _new_head(old: nn.Linear, num_classes: int, rows: torch.Tensor | None, zero: bool) -> nn.Linear:
    """Build a Linear with `num_classes` outputs from these rows of `old`, or a new one for None."""
    head = nn.Linear(old.in_features, num_classes, bias=old.bias is not None)
    if rows is not None:
        head.weight.copy_(old.weight[rows])
    elif zero:
        nn.init.zeros_(head.weight)
    else:
        nn.init.trunc_normal_(head.weight, std=0.02)
    if head.bias is not None:
        head.bias.copy_(old.bias[rows] if rows is not None else torch.zeros(num_classes))
    return head


def set_drop_path(module: PreTrainedModel, rate: float) -> None:
    """Set stochastic depth (arXiv:1603.09382), linear from 0 at the first layer to `rate`.

    Model types with a rate in their config got it when they were built. ViT and DeiT have none,
    but both residual branches of a layer pass through `layer.dropout`, and they have no other
    hidden dropout, so this is exact.
    """
    config = module.config
    if rate == 0 or hasattr(config, "drop_path_rate"):
        return
    if config.model_type not in ("vit", "deit") or config.hidden_dropout_prob:
        log.warning("--drop-path: %s does not support it; training without", config.model_type)
        return
    layers = module.base_model.layers
    for i, layer in enumerate(layers):
        layer.dropout = StochasticDepth(rate * i / max(1, len(layers) - 1), mode="row")


def parameter_groups(module: PreTrainedModel, layer_decay: float) -> list[ParameterGroup]:
    """Group the parameters by layer and weight decay (timm/optim/_param_groups.py).

    lr_scale is layer_decay^(L + 1 - layer). Layer 0 is the patch embedding, the class token and
    the positions, layer i the i-th block, and L + 1 the final norm and the head. Parameters
    between two blocks of a model with stages (downsampling) belong to the block before them.
    """
    blocks = [name + "." for name, _ in layers_in_order(module)]
    if layer_decay == 1.0 or not blocks:
        return default_parameter_groups(module, no_decay=NO_DECAY)
    layer_of = _assign_layers([name for name, _ in module.named_parameters()], blocks)
    return default_parameter_groups(
        module,
        layer_of=layer_of.__getitem__,
        num_layers=len(blocks) + 1,
        layer_decay=layer_decay,
        no_decay=NO_DECAY,
    )


def _assign_layers(names: Sequence[str], blocks: Sequence[str]) -> dict[str, int]:
    """Return {parameter name: layer}; parameters are ordered from the embeddings to the head."""
    last_block_at = max(i for i, name in enumerate(names) if name.startswith(blocks[-1]))
    layers, layer = {}, 0
    for i, name in enumerate(names):
        block = next(
            (j for j, prefix in enumerate(blocks, start=1) if name.startswith(prefix)), None
        )
        layer = block or layer
        layers[name] = layer if i <= last_block_at else len(blocks) + 1
    return layers


def layers_in_order(module: PreTrainedModel) -> list[tuple[str, nn.Module]]:
    """Return (name, block) from the input up; [] for a model type without known blocks."""
    if module.config.model_type in TRANSFORMERS:
        return [
            (name, block) for name, block in module.named_modules() if LAYER.fullmatch(name + ".")
        ]
    return [
        (name, block)
        for name, block in module.named_modules()
        if type(block).__name__ in STAGED_BLOCKS
    ]


def grad_checkpointing_blocks(module: PreTrainedModel) -> list[nn.Module]:
    """Return the transformer layers, whose activations may be recomputed in the backward pass.

    Raises:
        UserError: the model has no transformer layers.
    """
    kind = module.config.model_type
    if kind in TRANSFORMERS or kind in ("swin", "swinv2"):
        return [block for _, block in layers_in_order(module)]
    raise UserError(
        f"--grad-checkpointing: not supported for {kind}, which has no transformer layers",
        field="grad_checkpointing",
    )


@torch.no_grad()
def mimetic_init(module: PreTrainedModel) -> None:
    """Rewrite the random weights of a ViT or DeiT with the mimetic initialization.

    See tasks/huggingface/mimetic_init.py.

    Raises:
        UserError: the model is of another type.
    """
    config = module.config
    if config.model_type not in ("vit", "deit") or config.hidden_size % 4:
        raise UserError(
            "--init mimetic: expected a vit or deit with a hidden size divisible by 4; this is a"
            f" {config.model_type}",
            field="init",
        )
    mimetic_layers(module.base_model.layers, config.num_attention_heads, "o_proj")
    embeddings = module.base_model.embeddings
    num_patches = (config.image_size // config.patch_size) ** 2
    # the positions of special tokens come first
    positions = embeddings.position_embeddings[0, -num_patches:]
    mimetic_embeddings(embeddings.patch_embeddings.projection.weight, positions)
