"""Any image classifier of the library that maps pixel_values to logits: built at random or loaded from a folder."""

import logging
import re

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from torchvision.ops import StochasticDepth
from transformers import AutoModelForImageClassification, ViTConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from visionloop.engine.errors import UserError
from visionloop.engine.optim import default_parameter_groups
from visionloop.tasks.classification.architectures import ARCHITECTURES
from visionloop.tasks.classification.attention_rollout import KINDS
from visionloop.tasks.classification.positions import set_image_size
from visionloop.tasks.huggingface.loading import (
    class_names,
    load_config,
    load_weights,
    name_classes,
)
from visionloop.tasks.huggingface.mimetic_init import mimetic_embeddings, mimetic_layers
from visionloop.tasks.huggingface.positions import check_patch

# The mimetic start (see visionloop/tasks/mimetic.py) of the library's ViT classifiers.


@torch.no_grad()
def mimetic_init(module):
    """Rewrite the weights and the position embeddings of a new ViT or DeiT. Raises UserError for any other kind."""
    config = module.config
    if config.model_type not in ("vit", "deit") or config.hidden_size % 4:
        raise UserError(
            f"--init mimetic: for vit and deit of a width divisible by 4; this is a {config.model_type}",
            field="init",
        )
    mimetic_layers(module.base_model.layers, config.num_attention_heads, "o_proj")
    embeddings = module.base_model.embeddings
    num_patches = (config.image_size // config.patch_size) ** 2
    positions = embeddings.position_embeddings[
        0, -num_patches:
    ]  # those of special tokens come first
    mimetic_embeddings(embeddings.patch_embeddings.projection.weight, positions)


# Attention in fp32 where autocast is bf16 on a CPU, whose kernel for bf16 is slow in the backward
# pass.

ATTENTION = "fp32_on_cpu"
FEW_TOKENS = 256


def attention_forward(module, query, key, value, attention_mask, *, scaling, dropout=0.0, **others):
    """The library's attention interface: query, key, value [B, heads, N, D] -> ([B, N, heads, D], None). Not for causal attention.

    In training, in half precision, on a CPU, with at most FEW_TOKENS tokens, torch 2.14.1's fused
    kernel is given fp32: a step of `tiny` (65 tokens, 32 images) takes 0.6 times as long, one of
    vit-small (197 tokens, 4 images) 0.94 times, and gradients are nearer to fp32's. Three plain
    products of bf16 take 0.56 times as long, but train worse: 64.8, 76.2 and 77.6 % of the hand
    signs with three seeds.
    """
    half_on_cpu = query.device.type == "cpu" and query.dtype != torch.float32
    if (
        attention_mask is None
        and half_on_cpu
        and torch.is_grad_enabled()
        and key.shape[2] <= FEW_TOKENS
    ):
        with torch.autocast("cpu", enabled=False):
            attended = scaled_dot_product_attention(
                query.float(), key.float(), value.float(), dropout_p=dropout, scale=scaling
            )
        return attended.to(query.dtype).transpose(1, 2).contiguous(), None
    return sdpa_attention_forward(
        module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others
    )


ALL_ATTENTION_FUNCTIONS.register(ATTENTION, attention_forward)


# Which parameters learn how fast, which stand still, and which layers may recompute their
# activations.

# never decayed, besides norms and biases
NO_DECAY = (
    "cls_token",
    "distillation_token",
    "mask_token",
    "position_embedding",
    "relative_position_bias_table",
)
# names in memory: `vit.layers.3.mlp.fc1.weight`, `dinov2.encoder.layer.3.norm1.weight` (files keep
# older names)
LAYER = re.compile(r"^\w+\.(?:encoder\.)?layers?\.(\d+)\.")
TRANSFORMERS = (
    "vit",
    "deit",
    "beit",
    "data2vec-vision",
    "dinov2",
    "dinov2_with_registers",
    "ijepa",
    "vit_msn",
)
# blocks in the order of the forward, for kinds that come in stages: layer decay steps down from
# block to block
STAGED_BLOCKS = (
    "SwinLayer",
    "Swinv2Layer",
    "ConvNextLayer",
    "ConvNextV2Layer",
    "ResNetBasicLayer",
    "ResNetBottleNeckLayer",
    "MobileNetV2InvertedResidual",
)


def layers_in_order(module):
    """[(name, block)] from the input up; [] for a kind without blocks that we know."""
    if module.config.model_type in TRANSFORMERS:
        return [
            (name, block) for name, block in module.named_modules() if LAYER.fullmatch(name + ".")
        ]
    return [
        (name, block)
        for name, block in module.named_modules()
        if type(block).__name__ in STAGED_BLOCKS
    ]


def parameter_groups(module, layer_decay):
    """Groups (layer, decayed or not), with lr_scale = layer_decay^(L + 1 - layer) (timm/optim/_param_groups.py).

    Layer 0: patch embedding, class token, positions; i: the i-th block; L + 1: final norm and head.
    What lies between two blocks of a staged model (downsampling) belongs to the block before it.
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


def _assign_layers(names, blocks):
    """{parameter name: layer}. Parameters stand in the order of the modules, embeddings first and the head last."""
    last_block_at = max(i for i, name in enumerate(names) if name.startswith(blocks[-1]))
    layers, layer = {}, 0
    for i, name in enumerate(names):
        block = next(
            (j for j, prefix in enumerate(blocks, start=1) if name.startswith(prefix)), None
        )
        layer = block or layer
        layers[name] = layer if i <= last_block_at else len(blocks) + 1
    return layers


def recomputed_blocks(module):
    """The transformer layers of `module`, which may be recomputed in the backward pass. Raises UserError where there are none."""
    kind = module.config.model_type
    if kind in TRANSFORMERS or kind in ("swin", "swinv2"):
        return [block for _, block in layers_in_order(module)]
    raise UserError(
        f"--grad-checkpointing: not for {kind}, which has no transformer layers",
        field="grad_checkpointing",
    )


# The classification head: finding it, fitting it to the data's classes, carrying rows over by name.


def find_heads(module):
    """[(name, Linear)] with one output per class, outside the trunk.

    One for all kinds but the distilled DeiT, which averages two. Its name differs between models
    (`classifier`, `classifier.1`).
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
        f"{type(module).__name__} has no Linear with {module.config.num_labels} outputs outside its trunk"
    )
    return heads


def fit_head(module, classes, *, zero=False):
    """Give `module` one output per name in `classes`; the trunk stays bit-equal. Returns "kept", "carried" or "new".

    The same names in the same order keep the head; another order, or a part of them, takes the rows
    over by name; anything else starts a new head (truncated normal 0.02, as the library draws it,
    or zeros).
    """
    known = class_names(module.config)
    if known == list(classes):
        return "kept"
    carried = known is not None and set(classes) <= set(known)
    rows = torch.tensor([known.index(name) for name in classes]) if carried else None
    for name, old in find_heads(module):
        parent, _, attribute = name.rpartition(".")
        setattr(module.get_submodule(parent), attribute, _new_head(old, len(classes), rows, zero))
    name_classes(module.config, classes)
    module.num_labels = len(classes)
    return "carried" if carried else "new"


@torch.no_grad()
def _new_head(old, num_classes, rows, zero):
    """A Linear with `num_classes` outputs: the given rows of `old`, or a fresh start for None."""
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


log = logging.getLogger(__name__)

# kinds whose auto class wants more than pixel_values, or answers with something else
OTHER_CONTRACT = (
    "clip",
    "metaclip_2",
    "perceiver",
    "shieldgemma2",
    "siglip",
    "siglip2",
    "timm_wrapper",
)
# What a checkpoint may lack or have too much of: parts around the trunk, never of it.
AROUND_THE_TRUNK = ("pooler.", "mask_token", "lm_head.", "decoder.", "classifier.")


def build_model(
    source, classes, *, image_size=None, drop_path=0.0, zero_head=False, init="library"
):
    """The classifier of `source` with one output per name in `classes`, in fp32 on the CPU, in train mode.

    image_size: side of the images, None: the model's own; drop_path: rate of the last layer;
    init: of random weights.
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
        if name.endswith(
            "mask_token"
        ):  # for pretraining: never gets a gradient here, which DDP would wait for
            parameter.requires_grad_(False)
    return module.train()


def new_model(source, classes, *, image_size=None, drop_path=0.0):
    """A module with random weights: one of our architectures, or the config of a folder."""
    if source.folder is None:
        hidden, layers, heads, mlp, patch, size = ARCHITECTURES[source.name]
        config = ViTConfig(
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=mlp,
            patch_size=patch,
            image_size=size,
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
    """Side in pixels of the images that a source was made for; 224 where its config has none (resnet)."""
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
            field="model",
            file=str(folder),
        )
    return config


def set_drop_path(module, rate):
    """Stochastic depth (arXiv:1603.09382), linear from 0 at the first layer to `rate` at the last.

    Kinds with a rate in their config got it when they were built. ViT and DeiT have none, but both
    residual branches of a layer go through `layer.dropout`, and they have no hidden dropout of
    their own, so this is exact.
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
