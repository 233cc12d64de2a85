"""EoMT built at random, loaded from a Hugging Face folder, or started from a plain ViT, with one class row per class of the data."""

import logging
import re
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import EomtConfig

from visionloop.engine.errors import UserError
from visionloop.tasks.huggingface.loading import (
    class_names,
    load_config,
    load_weights,
    match_classes,
    name_classes,
)
from visionloop.tasks.huggingface.mimetic_init import mimetic_embeddings, mimetic_layers
from visionloop.tasks.huggingface.positions import check_patch
from visionloop.tasks.segmentation import backbones
from visionloop.tasks.segmentation.architectures import ARCHITECTURES
from visionloop.tasks.segmentation.network import (
    EomtDinov3ForUniversalSegmentation,
    EomtForUniversalSegmentation,
)
from visionloop.tasks.segmentation.positions import set_image_size

# Which parameters learn how fast: the heads, and the ViT block by block, which waits until the
# heads have begun.
#
# Source: `configure_optimizers` and `two_stage_warmup_poly_schedule.py` in training/ of
# `tue-mps/eomt`. Its factor for the blocks before the joint ones (`lr_mult`, DINOv3) is in a branch
# that never runs at commit 7bd19dd, so there is none here.

LAYER = re.compile(r"^layers\.(\d+)\.")
NOT_DECAYED = (
    "query.",
    "position_embeddings",
    "cls_token",
    "register_tokens",
)  # besides vectors, without `decay_all`


def parameter_groups(module, *, layer_decay, rest=None, warmup=None, decay_all=True):
    """[{"name", "params", "lr_scale", "weight_decay", "warmup", "start"}].

    Block i of N has the share layer_decay^(N - 1 - i) of the rate, embeddings that of block 0, the
    final norm and the heads all of it. rest, warmup: the ViT, its final norm too, keeps still for
    `rest` steps, then warms up over `warmup`; None: like the heads from the start. decay_all:
    weight decay on every parameter, as the authors have it; otherwise not on vectors, queries,
    positions and tokens.
    """
    num_layers, groups = len(module.layers), {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        label, share = _place(name, num_layers)
        decayed = decay_all or (
            parameter.squeeze().ndim > 1 and not any(word in name for word in NOT_DECAYED)
        )
        in_vit = label != "heads"
        group = groups.setdefault(
            (label, decayed),
            {
                "name": label + ("" if decayed else "_no_decay"),
                "params": [],
                "lr_scale": layer_decay**share,
                "weight_decay": None if decayed else 0.0,
                "warmup": warmup if in_vit else None,
                "start": (rest or 0) if in_vit else 0,
            },
        )
        group["params"].append(parameter)
    return list(groups.values())


def _place(name, num_layers):
    """(group, how many times its rate is decayed) of a parameter."""
    layer = LAYER.match(name)
    if layer:
        return f"block_{layer[1]}", num_layers - 1 - int(layer[1])
    if name.startswith("embeddings."):
        return "embeddings", num_layers - 1
    return ("norm", 0) if name.startswith("layernorm.") else ("heads", 0)


# What of a trained EoMT follows the data and the settings: class rows, queries, joint blocks.


@torch.no_grad()
def fit_classes(module, classes):
    """Give `module` one row per name in `classes`; rows of known names are carried over, and so is the row of "no object", the last.

    New rows are drawn as the library draws a linear layer of EoMT. Returns the names whose rows
    were carried over.
    """
    known = class_names(module.config)
    if known == list(classes):
        return list(classes)
    rows = match_classes(known, classes)
    trained = module.class_predictor
    head = nn.Linear(trained.in_features, len(classes) + 1)
    for name in ("weight", "bias"):
        new, old = getattr(head, name), getattr(trained, name)
        new[list(rows.keys())] = old[list(rows.values())]
        new[-1] = old[-1]
    module.class_predictor = head
    name_classes(module.config, classes)
    # its weights per class are part of the folder, though the library's loss never runs here
    module.criterion = type(module.criterion)(config=module.config, weight_dict=module.weight_dict)
    return [classes[i] for i in rows]


@torch.no_grad()
def set_num_queries(module, num_queries):
    """Keep the first trained queries; further ones start at N(0, 1), as all do in a new model."""
    trained = module.query.weight
    if num_queries == len(trained):
        return
    module.query = nn.Embedding(num_queries, trained.shape[1])
    kept = min(num_queries, len(trained))
    module.query.weight[:kept] = trained[:kept]
    module.config.num_queries = num_queries


def warn_of_few_queries(num_queries, classes):
    """A query finds one class of an image: with fewer of them than classes, an image that holds more has some that nothing learns."""
    if num_queries < len(classes):
        log.warning(
            "--num-queries %d: fewer than the %d classes; where an image holds more than %d of them, some go unlearned",
            num_queries, len(classes), num_queries,
        )  # fmt: skip


def set_num_blocks(module, num_blocks):
    """Let the queries join the patches in the last `num_blocks` blocks, all masked. Raises UserError."""
    config = module.config
    check_num_blocks(config, num_blocks)
    if num_blocks == config.num_blocks:
        return
    config.num_blocks = num_blocks
    module.attn_mask_probs = nn.Buffer(torch.ones(num_blocks))
    module.read_mask_probs()


def check_num_blocks(config, num_blocks):
    """Raise UserError for more joint blocks than there are blocks, and for none."""
    if not 1 <= num_blocks <= config.num_hidden_layers:
        why = f"expected 1 to {config.num_hidden_layers}, the blocks of this model"
        raise UserError(f"--num-blocks {num_blocks}: {why}", field="num_blocks")


# What a folder's weight files hold, and the SwiGLU layers that older files of EoMT hold in one
# piece.
#
# The library splits such layers for DINOv2 alone; in an EoMT file it takes them for unknown, and
# leaves random ones in their place.

FUSED = re.compile(r"^(layers\.\d+\.mlp)\.weights_(in|out)\.(weight|bias)$")


def stored_tensors(folder):
    """{name of a weight: file that holds it}. Reads headers alone. Raises UserError for a file that cannot be read."""
    found = {}
    for path in sorted(Path(folder).glob("model*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                found |= dict.fromkeys(file.keys(), path)
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"{path}: {str(error).splitlines()[0]}", field="model", file=str(path)
            ) from None
    return found


def parts_of(name):
    """The library's names of what a fused weight consists of, in order; empty for any other weight."""
    found = FUSED.match(name)
    if not found:
        return []
    mlp, which, kind = found.groups()
    return [
        f"{mlp}.{part}.{kind}"
        for part in (("gate_proj", "up_proj") if which == "in" else ("down_proj",))
    ]


@torch.no_grad()
def split_fused(module, stored):
    """Copy the fused weights of `stored`, as stored_tensors answers, into the parts that `module` has."""
    parameters = dict(module.named_parameters())
    for name, path in stored.items():
        parts = parts_of(name)
        if not parts:
            continue
        with safe_open(path, framework="pt") as file:
            for part, tensor in zip(parts, file.get_tensor(name).chunk(len(parts)), strict=True):
                parameters[part].copy_(tensor)


log = logging.getLogger(__name__)
NETWORKS = {"eomt": EomtForUniversalSegmentation, "eomt_dinov3": EomtDinov3ForUniversalSegmentation}
# what a folder may lack: the class head, what the library's loss holds, and how much is masked
MAY_BE_MISSING = ("class_predictor.", "criterion.", "attn_mask_probs")
# what a folder may have too much of: numbers that follow from the config, and DINOv3's token of
# pretraining
MAY_BE_TOO_MUCH = ("embeddings.mask_token", "embeddings.position_ids", "rope_embeddings.")


def build_model(source, classes, config, init="library"):
    """The network of `source` with one class row per name in `classes`, in fp32 on the CPU, in train mode.

    config: of `source_config`; init: of random weights, "library" or "mimetic". A trained EoMT
    keeps every weight but the rows of new names, and its positions are resized; a plain ViT gives
    the trunk, and queries and heads start at random.
    """
    warn_of_few_queries(config.num_queries, classes)
    if source.weights and not is_backbone(source.folder):
        module = load_model(source.folder, config.image_size)
        fit_classes(module, classes)
        set_num_queries(module, config.num_queries)
        set_num_blocks(module, config.num_blocks)
    else:
        module = new_model(config, classes)
        if source.weights:
            backbones.carry_trunk(backbones.load_backbone(source.folder), module)
        elif init == "mimetic":
            start_mimetic(module)
    if not module.config.num_register_tokens:
        module.embeddings.register_tokens.requires_grad_(
            False
        )  # an empty tensor, of whose gradient DDP has something to say
    return module.train()


def source_config(source, *, image_size=None, num_queries=None, num_blocks=None):
    """The library's config of the EoMT that a ModelSource stands for; None keeps its own. Raises UserError for what it cannot be."""
    config = read_config(source.folder) if source.folder else new_config(source.name)
    config.image_size = image_size or config.image_size
    config.num_queries = num_queries or config.num_queries
    config.num_blocks = num_blocks or config.num_blocks
    check_patch(config, config.image_size)
    check_num_blocks(config, config.num_blocks)
    return config


def new_config(name):
    """The library's config of one of our architectures."""
    fields, side = ARCHITECTURES[name]
    return EomtConfig(**fields, image_size=side)


def new_model(config, classes):
    """An EoMT with random weights, drawn as the library draws them; queries from N(0, 1), as the authors' are, for DINOv3 too."""
    config = type(config).from_dict(config.to_dict())
    name_classes(config, classes)
    config.dtype = torch.float32
    module = NETWORKS[config.model_type](config)
    nn.init.normal_(module.query.weight)
    return module


def start_mimetic(module):
    """Give the ViT of a new EoMT the mimetic start (tasks/huggingface/mimetic_init.py). Raises UserError for DINOv3 and for SwiGLU layers."""
    config = module.config
    if config.model_type != "eomt" or config.use_swiglu_ffn or config.hidden_size % 4:
        raise UserError(
            "--init mimetic: for EoMT on a plain ViT of a width divisible by 4", field="init"
        )
    mimetic_layers(module.layers, config.num_attention_heads, "out_proj")
    mimetic_embeddings(
        module.embeddings.patch_embeddings.projection.weight,
        module.embeddings.position_embeddings.weight,
    )


def load_model(folder, image_size=None):
    """The EoMT of a folder with its own classes, in fp32. image_size: None keeps its own.

    Raises UserError when a weight is missing or unknown. A folder that does not say what is masked
    was trained to the end: nothing is.
    """
    config = read_config(folder)
    if is_backbone(folder):
        why = "a plain ViT, expected a trained EoMT; `train` starts from such a folder"
        raise UserError(f"--model {folder}: {why}", field="model", file=str(folder))
    config.dtype = torch.float32
    stored = stored_tensors(folder)
    split = {part for name in stored for part in parts_of(name)}

    def may_differ(_, name):
        return (
            name.startswith(MAY_BE_MISSING + MAY_BE_TOO_MUCH)
            or name in split
            or bool(parts_of(name))
        )

    module = load_weights(NETWORKS[config.model_type], folder, config, may_differ)
    split_fused(module, stored)
    if "attn_mask_probs" not in stored:
        module.attn_mask_probs.zero_()
    if "class_predictor.weight" not in stored:
        log.warning("%s: holds no class head, which starts at random", folder)
    module.read_mask_probs()
    if image_size:
        set_image_size(module, image_size)
    return module


def is_backbone(folder):
    """True for the folder of a plain ViT."""
    return load_config(folder).model_type in backbones.KINDS


def read_config(folder):
    """The config of the EoMT that a folder holds, or that is built on the plain ViT it holds. Raises UserError for any other model."""
    config = load_config(folder)
    if config.model_type in backbones.KINDS:
        return backbones.eomt_config(config, folder)
    if config.model_type not in NETWORKS:
        expected = f"expected {', '.join(NETWORKS)} or a plain ViT ({', '.join(backbones.KINDS)})"
        raise UserError(
            f"--model {folder}: a {config.model_type} model, {expected}",
            field="model",
            file=str(folder),
        )
    for name in ("image_size", "patch_size"):
        sides = getattr(config, name)
        sides = [sides] if isinstance(sides, int) else list(sides)
        if len(set(sides)) > 1:
            why = f"config.json has {name} {sides}, expected a square"
            raise UserError(f"--model {folder}: {why}", field="model", file=str(folder))
        setattr(config, name, sides[0])  # the library's network fails on a list
    return config
