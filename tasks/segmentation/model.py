"""EoMT with random weights, from a Hugging Face folder or on a plain ViT."""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import EomtConfig, PretrainedConfig, PreTrainedModel

from visionloop.engine.errors import UserError
from visionloop.engine.optim import ParameterGroup
from visionloop.tasks.huggingface.hub import ModelSource
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
from visionloop.tasks.segmentation.architectures import ARCHITECTURES, SIDE
from visionloop.tasks.segmentation.network import (
    EomtDinov3ForUniversalSegmentation,
    EomtForUniversalSegmentation,
)
from visionloop.tasks.segmentation.positions import set_image_size

log = logging.getLogger(__name__)
NETWORKS = {"eomt": EomtForUniversalSegmentation, "eomt_dinov3": EomtDinov3ForUniversalSegmentation}
# weights that a folder may lack: the class head, those of the loss of transformers, and the
# probabilities of masks
MAY_BE_MISSING = ("class_predictor.", "criterion.", "attn_mask_probs")
# weights that a folder may have in excess: numbers that follow from the config, and
# DINOv3's token of pretraining
MAY_BE_UNEXPECTED = ("embeddings.mask_token", "embeddings.position_ids", "rope_embeddings.")
# a SwiGLU layer that older files of EoMT store as one weight
FUSED = re.compile(r"^(layers\.\d+\.mlp)\.weights_(in|out)\.(weight|bias)$")
LAYER = re.compile(r"^layers\.(\d+)\.")
# without decay_all, parameters besides vectors that get no weight decay
NO_DECAY = ("query.", "position_embeddings", "cls_token", "register_tokens")


def build_model(
    source: ModelSource,
    classes: Sequence[str],
    config: PretrainedConfig,
    init: str = "transformers",
) -> PreTrainedModel:
    """Build the network of `source` with one class row per name in `classes`.

    A trained EoMT keeps every weight but the rows of new names, and its positions are resized; a
    plain ViT gives the trunk, and queries and heads start at random.

    Args:
        source: the start of the model.
        classes: class names in order of id.
        config: of `source_config`.
        init: initialization of random weights, "transformers" or "mimetic".

    Returns:
        The network in fp32 on the CPU, in train mode.
    """
    if source.folder and source.weights and not is_backbone(source.folder):
        module = load_model(source.folder, config.image_size)
        fit_classes(module, classes)
        set_num_queries(module, config.num_queries)
        set_num_blocks(module, config.num_blocks)
    else:
        module = new_model(config, classes)
        if source.folder and source.weights:
            backbones.copy_trunk(backbones.load_backbone(source.folder), module)
        elif init == "mimetic":
            init_mimetic(module)
    if not module.config.num_register_tokens:
        # an empty tensor, of whose missing gradient DDP would complain
        module.embeddings.register_tokens.requires_grad_(False)
    return module.train()


def source_config(
    source: ModelSource,
    *,
    image_size: int | None = None,
    num_queries: int | None = None,
    num_blocks: int | None = None,
    new_sizes: tuple[int, int] | None = None,
) -> PretrainedConfig:
    """Return the config of the EoMT of a ModelSource.

    Settings that are None keep the model's own. Raises UserError for one that the model cannot
    have.

    Args:
        source: the start of the model.
        image_size, num_queries, num_blocks: the settings.
        new_sizes: (image size, number of queries) of a new EoMT for images of SIDE pixels; None:
            SIDE and those of the architecture.
    """
    config = read_config(source.folder) if source.folder else new_config(source.name)
    is_new = source.folder is None or is_backbone(source.folder)
    if new_sizes and is_new and config.image_size == SIDE:
        config.image_size, config.num_queries = new_sizes
    config.image_size = image_size or config.image_size
    config.num_queries = num_queries or config.num_queries
    config.num_blocks = num_blocks or config.num_blocks
    check_patch(config, config.image_size)
    check_num_blocks(config, config.num_blocks)
    return config


def new_config(name: str) -> PretrainedConfig:
    """Return the config of one of our architectures."""
    fields, side = ARCHITECTURES[name]
    return EomtConfig(**fields, image_size=side)


def new_model(config: PretrainedConfig, classes: Sequence[str]) -> PreTrainedModel:
    """Build an EoMT with the random weights of transformers.

    Queries are drawn from N(0, 1), as the authors' are, for DINOv3 too.
    """
    config = type(config).from_dict(config.to_dict())
    name_classes(config, classes)
    config.dtype = torch.float32
    module = NETWORKS[config.model_type](config)
    nn.init.normal_(module.query.weight)
    return module


def init_mimetic(module: PreTrainedModel) -> None:
    """Initialize the ViT of a new EoMT, see tasks/huggingface/mimetic_init.py.

    Raises UserError for DINOv3 and for SwiGLU layers.
    """
    config = module.config
    if config.model_type != "eomt" or config.use_swiglu_ffn or config.hidden_size % 4:
        raise UserError(
            "--init mimetic: expected EoMT on a plain ViT of a width divisible by 4", field="init"
        )
    mimetic_layers(module.layers, config.num_attention_heads, "out_proj")
    mimetic_embeddings(
        module.embeddings.patch_embeddings.projection.weight,
        module.embeddings.position_embeddings.weight,
    )


def load_model(folder: str | Path, image_size: int | None = None) -> PreTrainedModel:
    """Load the EoMT of a folder with its own classes, in fp32.

    A folder that has no probabilities of masks was trained to the end: no query is masked.

    Args:
        folder: a Hugging Face folder.
        image_size: side of the images in pixels; None: the model's own.

    Raises:
        UserError: the folder holds another model, or a weight is missing or unexpected.
    """
    config = read_config(folder)
    if is_backbone(folder):
        why = "a plain ViT, expected a trained EoMT; `train` starts from such a folder"
        raise UserError(f"--model {folder}: {why}", field="model", file=str(folder))
    config.dtype = torch.float32
    stored = stored_tensors(folder)
    fused_parts = {part for name in stored for part in parts_of(name)}

    def may_differ(_: PreTrainedModel, name: str) -> bool:
        return (
            name.startswith(MAY_BE_MISSING + MAY_BE_UNEXPECTED)
            or name in fused_parts
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


def is_backbone(folder: str | Path) -> bool:
    """Return True for the folder of a plain ViT."""
    return load_config(folder).model_type in backbones.MODEL_TYPES


def read_config(folder: str | Path) -> PretrainedConfig:
    """Return the config of the EoMT of a folder, or of the one that is built on its plain ViT.

    Raises UserError for any other model, and for sizes that are no square.
    """
    config = load_config(folder)
    if config.model_type in backbones.MODEL_TYPES:
        return backbones.eomt_config(config, folder)
    if config.model_type not in NETWORKS:
        vits = ", ".join(backbones.MODEL_TYPES)
        raise UserError(
            f"--model {folder}: a {config.model_type} model, expected {', '.join(NETWORKS)} or a "
            f"plain ViT ({vits})",
            field="model",
            file=str(folder),
        )
    for name in ("image_size", "patch_size"):
        sides = getattr(config, name)
        sides = [sides] if isinstance(sides, int) else list(sides)
        if len(set(sides)) > 1:
            why = f"config.json has {name} {sides}, expected a square"
            raise UserError(f"--model {folder}: {why}", field="model", file=str(folder))
        setattr(config, name, sides[0])  # the network of transformers fails on a list
    return config


# fitting a trained EoMT to data and settings --------------------


@torch.no_grad()
def fit_classes(module: PreTrainedModel, classes: Sequence[str]) -> None:
    """Give the class head one row per name in `classes`, and the last for "no object".

    Rows of names that the trained head has are copied, and so is that of "no object"; new rows are
    drawn as transformers draws a linear layer of EoMT.
    """
    trained_names = class_names(module.config)
    vars(module.config).pop("is_thing", None)  # of the trained classes, see segments/things.py
    if trained_names == list(classes):
        return
    rows = match_classes(trained_names, classes)
    trained = module.class_predictor
    head = nn.Linear(trained.in_features, len(classes) + 1)
    for name in ("weight", "bias"):
        new, old = getattr(head, name), getattr(trained, name)
        new[list(rows.keys())] = old[list(rows.values())]
        new[-1] = old[-1]
    module.class_predictor = head
    name_classes(module.config, classes)
    # its weights per class are part of the folder, though this loss is never computed
    module.criterion = type(module.criterion)(config=module.config, weight_dict=module.weight_dict)


@torch.no_grad()
def set_num_queries(module: PreTrainedModel, num_queries: int) -> None:
    """Copy the first trained queries; further ones start at N(0, 1), as all do in a new model."""
    trained = module.query.weight
    if num_queries == len(trained):
        return
    module.query = nn.Embedding(num_queries, trained.shape[1])
    num_copied = min(num_queries, len(trained))
    module.query.weight[:num_copied] = trained[:num_copied]
    module.config.num_queries = num_queries


def warn_of_few_queries(num_queries: int, classes: Sequence[str]) -> None:
    """Log a warning when there are fewer queries than classes.

    A query predicts one class of an image: in an image with more classes than queries, some have
    none that learns them.
    """
    if num_queries < len(classes):
        log.warning(
            "--num-queries %d: fewer than the %d classes; in an image with more than %d of them, "
            "some are not learned",
            num_queries,
            len(classes),
            num_queries,
        )


def set_num_blocks(module: PreTrainedModel, num_blocks: int) -> None:
    """Let the queries join the patches in the last `num_blocks` blocks, all masked.

    Raises UserError for a number that the model cannot have.
    """
    config = module.config
    check_num_blocks(config, num_blocks)
    if num_blocks == config.num_blocks:
        return
    config.num_blocks = num_blocks
    module.attn_mask_probs = nn.Buffer(torch.ones(num_blocks))
    module.read_mask_probs()


def check_num_blocks(config: PretrainedConfig, num_blocks: int) -> None:
    """Raise UserError for more query blocks than the model has blocks, and for none."""
    if not 1 <= num_blocks <= config.num_hidden_layers:
        why = f"expected 1 to {config.num_hidden_layers}, the blocks of this model"
        raise UserError(f"--num-blocks {num_blocks}: {why}", field="num_blocks")


# SwiGLU layers that older files of EoMT store fused. transformers splits them for DINOv2 alone; in
# an EoMT file it takes them for unexpected, and leaves random weights in their place.


def stored_tensors(folder: str | Path) -> dict[str, Path]:
    """Return {name of a weight: its file} of a folder, from the headers alone.

    Raises UserError for a file that cannot be read.
    """
    files: dict[str, Path] = {}
    for path in sorted(Path(folder).glob("model*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                files |= dict.fromkeys(file.keys(), path)
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"{path}: {str(error).splitlines()[0]}", field="model", file=str(path)
            ) from None
    return files


def parts_of(name: str) -> list[str]:
    """Return the weights that a fused weight consists of, in order; [] for any other weight."""
    match = FUSED.match(name)
    if not match:
        return []
    mlp, side, kind = match.groups()
    parts = ("gate_proj", "up_proj") if side == "in" else ("down_proj",)
    return [f"{mlp}.{part}.{kind}" for part in parts]


@torch.no_grad()
def split_fused(module: PreTrainedModel, stored: Mapping[str, Path]) -> None:
    """Copy the fused weights of `stored` (see `stored_tensors`) into the parts of `module`."""
    parameters = dict(module.named_parameters())
    for name, path in stored.items():
        parts = parts_of(name)
        if not parts:
            continue
        with safe_open(path, framework="pt") as file:
            for part, tensor in zip(parts, file.get_tensor(name).chunk(len(parts)), strict=True):
                parameters[part].copy_(tensor)


# parameter groups --------------------


def parameter_groups(
    module: PreTrainedModel,
    *,
    layer_decay: float,
    rest: int | None = None,
    warmup: int | None = None,
    decay_all: bool = True,
) -> list[ParameterGroup]:
    """Return the parameter groups: the heads, and the ViT block by block, which starts later.

    Block i of N has lr_scale = layer_decay^(N - 1 - i), embeddings that of block 0, the final norm
    and the heads 1. Source: `configure_optimizers` and `two_stage_warmup_poly_schedule.py` in
    training/ of `tue-mps/eomt`. Its factor for the blocks before the query blocks (`lr_mult`,
    DINOv3) is in a branch that never runs at commit 7bd19dd, so there is none here.

    Args:
        module: the EoMT.
        layer_decay: factor from each block to the one below.
        rest: step before which the ViT with its final norm does not train; None: 0.
        warmup: warm-up steps of the ViT after that; None: those of the run.
        decay_all: weight decay on every parameter, as the authors have it; False: not on vectors,
            queries, positions and tokens.
    """
    num_layers = len(module.layers)
    groups: dict[tuple[str, bool], ParameterGroup] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        label, depth = _label_and_depth(name, num_layers)
        decays = decay_all or (
            parameter.squeeze().ndim > 1 and not any(word in name for word in NO_DECAY)
        )
        in_vit = label != "heads"
        group = groups.setdefault(
            (label, decays),
            {
                "name": label + ("" if decays else "_no_decay"),
                "params": [],
                "lr_scale": layer_decay**depth,
                "weight_decay": None if decays else 0.0,
                "warmup": warmup if in_vit else None,
                "start": (rest or 0) if in_vit else 0,
            },
        )
        group["params"].append(parameter)
    return list(groups.values())


def _label_and_depth(name: str, num_layers: int) -> tuple[str, int]:
    """Return (group, number of blocks above it) of a parameter."""
    layer = LAYER.match(name)
    if layer:
        return f"block_{layer[1]}", num_layers - 1 - int(layer[1])
    if name.startswith("embeddings."):
        return "embeddings", num_layers - 1
    return ("norm", 0) if name.startswith("layernorm.") else ("heads", 0)
