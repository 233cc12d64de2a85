"""EoMT built at random, loaded from a Hugging Face folder, or started from a plain ViT, with one class row per class of the data."""

import logging

import torch
from torch import nn
from transformers import EomtConfig

from visionloop.engine.errors import UserError
from visionloop.tasks.classification.positions import check_patch
from visionloop.tasks.library import load_config, load_weights, name_classes
from visionloop.tasks.mimetic import mimetic_embeddings, mimetic_layers
from visionloop.tasks.segmentation import backbones
from visionloop.tasks.segmentation.fused import parts_of, split_fused, stored_tensors
from visionloop.tasks.segmentation.head import check_num_blocks, fit_classes, set_num_blocks, set_num_queries, warn_of_few_queries
from visionloop.tasks.segmentation.network import EomtDinov3ForUniversalSegmentation, EomtForUniversalSegmentation
from visionloop.tasks.segmentation.positions import set_image_size
from visionloop.tasks.segmentation.sizes import ARCHITECTURES

log = logging.getLogger(__name__)
NETWORKS = {"eomt": EomtForUniversalSegmentation, "eomt_dinov3": EomtDinov3ForUniversalSegmentation}
# what a folder may lack: the class head, what the library's loss holds, and how much is masked
MAY_BE_MISSING = ("class_predictor.", "criterion.", "attn_mask_probs")
# what a folder may have too much of: numbers that follow from the config, and DINOv3's token of pretraining
MAY_BE_TOO_MUCH = ("embeddings.mask_token", "embeddings.position_ids", "rope_embeddings.")


def build_model(source, classes, config, init="library"):
    """The network of `source` with one class row per name in `classes`, in fp32 on the CPU, in train mode.

    config: of `source_config`; init: of random weights, "library" or "mimetic". A trained EoMT keeps every weight but the rows of new
    names, and its positions are resized; a plain ViT gives the trunk, and queries and heads start at random.
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
        module.embeddings.register_tokens.requires_grad_(False)  # an empty tensor, of whose gradient DDP has something to say
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
    """Give the ViT of a new EoMT the mimetic start (tasks/mimetic.py). Raises UserError for DINOv3 and for SwiGLU layers."""
    config = module.config
    if config.model_type != "eomt" or config.use_swiglu_ffn or config.hidden_size % 4:
        raise UserError("--init mimetic: for EoMT on a plain ViT of a width divisible by 4", field="init")
    mimetic_layers(module.layers, config.num_attention_heads, "out_proj")
    mimetic_embeddings(module.embeddings.patch_embeddings.projection.weight, module.embeddings.position_embeddings.weight)


def load_model(folder, image_size=None):
    """The EoMT of a folder with its own classes, in fp32. image_size: None keeps its own.

    Raises UserError when a weight is missing or unknown. A folder that does not say what is masked was trained to the end: nothing is.
    """
    config = read_config(folder)
    if is_backbone(folder):
        why = "a plain ViT, expected a trained EoMT; `train` starts from such a folder"
        raise UserError(f"--model {folder}: {why}", field="model", file=str(folder))
    config.dtype = torch.float32
    stored = stored_tensors(folder)
    split = {part for name in stored for part in parts_of(name)}

    def may_differ(_, name):
        return name.startswith(MAY_BE_MISSING + MAY_BE_TOO_MUCH) or name in split or bool(parts_of(name))

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
        raise UserError(f"--model {folder}: a {config.model_type} model, {expected}", field="model", file=str(folder))
    for name in ("image_size", "patch_size"):
        sides = getattr(config, name)
        sides = [sides] if isinstance(sides, int) else list(sides)
        if len(set(sides)) > 1:
            why = f"config.json has {name} {sides}, expected a square"
            raise UserError(f"--model {folder}: {why}", field="model", file=str(folder))
        setattr(config, name, sides[0])  # the library's network fails on a list
    return config
