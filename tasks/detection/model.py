"""D-FINE built at random or loaded from a Hugging Face folder, with one class row per class of the data."""

import logging

import torch
from transformers import DFineConfig, HGNetV2Config

from visionloop.engine.errors import UserError
from visionloop.tasks.detection.head import carry_weights
from visionloop.tasks.detection.initialization import initialize
from visionloop.tasks.detection.network import DFineForObjectDetection
from visionloop.tasks.detection.sizes import ARCHITECTURES
from visionloop.tasks.library import class_names, load_config, load_weights, name_classes

log = logging.getLogger(__name__)
STEP = 32  # the coarsest level's stride: sides of the input are multiples of it


def build_model(source, classes, *, backbone_bn=None, class_prior=None):
    """The detector of `source` with one class row per name in `classes`, in fp32 on the CPU, in train mode.

    backbone_bn: "trained" or "frozen" statistics, None: as the authors train that size; class_prior: the score that classes without a
    released row start with, None: 0.01, as the authors do, and 0.1 for one class alone. Rows of known names are carried over.
    """
    prior = class_prior or (0.1 if len(classes) == 1 else 0.01)
    if not source.weights:
        module = new_model(read_config(source.folder) if source.folder else new_config(source.name), classes, backbone_bn, prior)
    else:
        module = load_model(source.folder, backbone_bn)
        if class_names(module.config) != list(classes):
            trained = module
            module = new_model(trained.config, classes, backbone_bn, prior)
            carry_weights(trained, module)
    if not learns_statistics(module.config):
        module.model.backbone.model.embedder.requires_grad_(False)  # the authors hold the stem of L and X too
    return module.train()


def new_config(name):
    """The library's config of one of our architectures."""
    backbone, detector, _ = ARCHITECTURES[name]
    return DFineConfig(backbone_config=HGNetV2Config(**backbone), **detector)


def new_model(config, classes, backbone_bn=None, class_prior=0.01):
    """A detector with random weights, drawn as the authors draw them."""
    config = type(config).from_dict(config.to_dict())
    name_classes(config, classes)
    _settle(config, backbone_bn)
    module = DFineForObjectDetection(config)
    initialize(module, class_prior)
    return module


def load_model(folder, backbone_bn=None):
    """The detector of a Hugging Face folder with its own classes, in fp32. Raises UserError when a weight is missing or unknown."""
    config = read_config(folder)
    _settle(config, backbone_bn)
    # a BatchNorm's count is there or not as its statistics were trained or frozen
    module = load_weights(DFineForObjectDetection, folder, config, lambda _, name: name.endswith("num_batches_tracked"))
    _read_scales(module, folder)
    _warn_of_broken_keys(module, folder)
    return module


def read_config(folder):
    """The config of a D-FINE folder. Raises UserError for any other model."""
    config = load_config(folder)
    if config.model_type != "d_fine":
        other = " (its heads and losses are others than D-FINE's)" if config.model_type.startswith("rt_detr") else ""
        why = f"a {config.model_type} model, expected d_fine{other}"
        raise UserError(f"--model {folder}: {why}", field="model", file=str(folder))
    return config


def learns_statistics(config):
    """True when the backbone's BatchNorm is trained."""
    return not config.freeze_backbone_batch_norms


def check_image_size(config, size):
    """Raise UserError for a side that the network cannot read."""
    if size % STEP:
        raise UserError(f"--image-size {size}: expected a multiple of {STEP}", field="image_size")
    tokens = sum((size // stride) ** 2 for stride in config.feat_strides)
    if tokens < config.num_queries:
        why = f"{tokens} places on the network's grids, fewer than its {config.num_queries} queries"
        raise UserError(f"--image-size {size}: {why}; take a larger size", field="image_size")


def _settle(config, backbone_bn):
    """What training and evaluation at any size need, and whether the backbone's BatchNorm is trained."""
    config.anchor_image_size = None  # else anchors fit one size alone
    config.eval_size = None  # else the library leaves position embeddings out in evaluation
    config.auxiliary_loss = True
    config.dtype = torch.float32
    if backbone_bn is None:
        # the authors train it for N, S and M, whose backbones have learnable affine blocks, and freeze it for L and X
        backbone_bn = "trained" if config.backbone_config.use_learnable_affine_block else "frozen"
    config.freeze_backbone_batch_norms = backbone_bn == "frozen"


def _read_scales(module, folder):
    """The weights know the scale of the edge distributions; a converted config may not."""
    for name in ("reg_scale", "up"):
        stored = getattr(module.model.decoder, name).item()
        if abs(stored - getattr(module.config, name)) > 1e-6:
            log.warning("%s: config.json has %s %s, the weights %s, which counts", folder, name, getattr(module.config, name), stored)
            setattr(module.config, name, stored)


def _warn_of_broken_keys(module, folder):
    """Early copies of the nano weights had the values' projection in the place of the keys' (transformers issue 40253)."""
    for layer in module.model.decoder.layers:
        if torch.equal(layer.self_attn.k_proj.weight, layer.self_attn.v_proj.weight):
            log.warning("%s: a decoder layer has equal key and value projections, a broken early copy; fetch the weights anew", folder)
            return
