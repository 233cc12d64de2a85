"""D-FINE as a model: built at random or loaded, its class heads, and its parameter groups."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers import DFineConfig, HGNetV2Config

from visionloop.engine.errors import UserError
from visionloop.tasks.detection.architectures import ARCHITECTURES
from visionloop.tasks.detection.initialization import initialize
from visionloop.tasks.detection.network import DFineForObjectDetection
from visionloop.tasks.huggingface.loading import (
    class_names,
    load_config,
    load_weights,
    match_classes,
    name_classes,
)

if TYPE_CHECKING:
    from visionloop.engine.optim import ParameterGroup
    from visionloop.tasks.huggingface.hub import ModelSource

log = logging.getLogger(__name__)

STRIDE = 32  # of the coarsest feature level: the sides of the input are multiples of it
BACKBONE = "model.backbone."
NORMS = (nn.LayerNorm, nn.modules.batchnorm._BatchNorm)
# parameters with one row per class; the embedding of denoising queries has one more, for padding
CLASS_ROWS = re.compile(
    r"(^|\.)(enc_score_head|class_embed\.\d+|denoising_class_embed)\.(weight|bias)$"
)


def build_model(
    source: ModelSource,
    classes: Sequence[str],
    *,
    backbone_bn: str | None = None,
    class_prior: float | None = None,
) -> DFineForObjectDetection:
    """Build the model of `--model` with one class row per name, in fp32 on the CPU, in train mode.

    Weights of classes that the loaded model has by name are carried over.

    Args:
        source: of `MODEL_NAMES.find`.
        classes: names in order of label.
        backbone_bn: "trained" or "frozen" BatchNorm statistics; None: as the authors train that
            size.
        class_prior: the score that classes without trained weights start with; None: 0.01, as the
            authors do, and 0.1 for a single class.
    """
    prior = class_prior or (0.1 if len(classes) == 1 else 0.01)
    if not source.weights:
        module = new_model(model_config(source), classes, backbone_bn, prior)
    else:
        assert source.folder is not None, "weights without a folder"
        module = load_model(source.folder, backbone_bn)
        if class_names(module.config) != list(classes):
            trained = module
            module = new_model(trained.config, classes, backbone_bn, prior)
            carry_weights(trained, module)
    if not has_trained_norms(module.config):
        # the authors freeze the stem of L and X too
        module.model.backbone.model.embedder.requires_grad_(False)
    return module.train()


def model_config(source: ModelSource) -> DFineConfig:
    """Return the config of a source."""
    return read_config(source.folder) if source.folder else new_config(source.name)


def new_config(name: str) -> DFineConfig:
    """Return the config of one of `ARCHITECTURES`."""
    backbone, detector, _ = ARCHITECTURES[name]
    return DFineConfig(backbone_config=HGNetV2Config(**backbone), **detector)


def new_model(
    config: DFineConfig,
    classes: Sequence[str],
    backbone_bn: str | None = None,
    class_prior: float = 0.01,
) -> DFineForObjectDetection:
    """Build a model with random weights, drawn as the authors draw them; see `build_model`."""
    config = type(config).from_dict(config.to_dict())
    name_classes(config, classes)
    _complete_config(config, backbone_bn)
    module = DFineForObjectDetection(config)
    initialize(module, class_prior)
    return module


def load_model(folder: str | Path, backbone_bn: str | None = None) -> DFineForObjectDetection:
    """Load a Hugging Face folder with its own classes, in fp32.

    Raises UserError when the folder holds no D-FINE, or a weight is missing or unknown.
    """
    config = read_config(folder)
    _complete_config(config, backbone_bn)
    # a BatchNorm has its counter or not, as its statistics were trained or frozen
    module = load_weights(
        DFineForObjectDetection,
        folder,
        config,
        lambda _, name: name.endswith("num_batches_tracked"),
    )
    _read_scales(module, folder)
    _warn_of_broken_keys(module, folder)
    return module


def read_config(folder: str | Path) -> DFineConfig:
    """Read the config of a D-FINE folder. Raises UserError for any other model."""
    config = load_config(folder)
    if config.model_type != "d_fine":
        is_relative = config.model_type.startswith("rt_detr")
        reason = " (its heads and losses differ from those of D-FINE)" if is_relative else ""
        raise UserError(
            f"--model {folder}: is a {config.model_type} model, expected d_fine{reason}",
            field="model",
            file=str(folder),
        )
    return config


def has_trained_norms(config: DFineConfig) -> bool:
    """Return True when the BatchNorm of the backbone is trained."""
    return not config.freeze_backbone_batch_norms


def check_image_size(config: DFineConfig, size: int) -> None:
    """Raise UserError for a side in pixels that the model cannot process."""
    if size % STRIDE:
        raise UserError(f"--image-size {size}: expected a multiple of {STRIDE}", field="image_size")
    positions = sum((size // stride) ** 2 for stride in config.feat_strides)
    if positions < config.num_queries:
        raise UserError(
            f"--image-size {size}: gives {positions} feature positions, fewer than the "
            f"{config.num_queries} queries of the model; choose a larger size",
            field="image_size",
        )


def parameter_groups(
    module: nn.Module, backbone_lr_scale: float, *, decay_biases: bool = False
) -> list[ParameterGroup]:
    """Group the trained parameters: backbone and the rest, each with and without weight decay.

    Norms are never decayed. Unlike the authors, whose regular expressions miss them, we leave out
    norms and affine scalars of the backbone too.

    Args:
        module: the model.
        backbone_lr_scale: factor on the learning rate of the backbone.
        decay_biases: decay biases outside the backbone, as the authors do for L and X.
    """
    norms = {
        id(parameter)
        for layer in module.modules()
        if isinstance(layer, NORMS)
        for parameter in layer.parameters()
    }
    groups: dict[str, ParameterGroup] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        in_backbone = name.startswith(BACKBONE)
        is_bias = parameter.ndim == 1 and id(parameter) not in norms
        decayed = id(parameter) not in norms and (not is_bias or (decay_biases and not in_backbone))
        label = ("backbone" if in_backbone else "detector") + ("" if decayed else "_no_decay")
        group = groups.setdefault(
            label,
            {
                "name": label,
                "params": [],
                "lr_scale": backbone_lr_scale if in_backbone else 1.0,
                "weight_decay": None if decayed else 0.0,
                "warmup": None,
            },
        )
        group["params"].append(parameter)
    return list(groups.values())


def grad_checkpointing_blocks(module: DFineForObjectDetection) -> list[nn.Module]:
    """Return the decoder layers, and the stages of the backbone where its BatchNorm is frozen.

    A trained BatchNorm would count its statistics twice.
    """
    stages = (
        [] if has_trained_norms(module.config) else list(module.model.backbone.model.encoder.stages)
    )
    return [*module.model.decoder.layers, *stages]


@torch.no_grad()
def carry_weights(trained: DFineForObjectDetection, module: DFineForObjectDetection) -> list[str]:
    """Copy all weights of a model into one with other classes, class rows by class name.

    Rows of other classes stay as they are. (The authors' code maps rows by a table of ids, which
    mixes up the heads when the numbers of classes differ: src/solver/_solver.py of
    `Peterande/D-FINE`.)

    Returns:
        The names of the classes whose rows were copied.
    """
    classes = class_names(module.config) or []
    rows = match_classes(class_names(trained.config), classes)
    new, old = list(rows.keys()), list(rows.values())
    source = trained.state_dict()
    for name, tensor in module.state_dict().items():
        if CLASS_ROWS.search(name):
            tensor[new] = source[name][old]
        elif name in source:
            tensor.copy_(source[name])
        else:
            assert name.endswith("num_batches_tracked"), f"{name} is missing in the trained weights"
    return [classes[i] for i in new]


def _complete_config(config: DFineConfig, backbone_bn: str | None) -> None:
    """Set the fields that our training and evaluation need, at any image size."""
    config.anchor_image_size = None  # otherwise anchors fit one size alone
    config.eval_size = None  # otherwise transformers omits position embeddings in evaluation
    config.auxiliary_loss = True
    config.dtype = torch.float32
    if backbone_bn is None:
        # the authors train it for N, S and M, whose backbones have learnable affine blocks, and
        # freeze it for L and X
        backbone_bn = "trained" if config.backbone_config.use_learnable_affine_block else "frozen"
    config.freeze_backbone_batch_norms = backbone_bn == "frozen"


def _read_scales(module: DFineForObjectDetection, folder: str | Path) -> None:
    """Set the scales of the corner distributions in the config to those of the weights.

    A converted config may have others.
    """
    for name in ("reg_scale", "up"):
        stored = getattr(module.model.decoder, name).item()
        configured = getattr(module.config, name)
        if abs(stored - configured) > 1e-6:
            log.warning(
                "%s: config.json has %s %s, the weights have %s; the weights are used",
                folder,
                name,
                configured,
                stored,
            )
            setattr(module.config, name, stored)


def _warn_of_broken_keys(module: DFineForObjectDetection, folder: str | Path) -> None:
    """Warn of early copies of the nano weights, whose keys have the projection of the values.

    See transformers issue 40253.
    """
    for layer in module.model.decoder.layers:
        if torch.equal(layer.self_attn.k_proj.weight, layer.self_attn.v_proj.weight):
            log.warning(
                "%s: a decoder layer has equal key and value projections, which is a broken early "
                "copy of the weights; download them again",
                folder,
            )
            return
