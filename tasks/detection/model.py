"""D-FINE built at random or loaded from a Hugging Face folder, with one class row per class of the data."""

import logging
import re

import torch
import transformers
from torch import nn
from transformers import DFineConfig, HGNetV2Config
from transformers.modeling_outputs import BaseModelOutput

from visionloop.engine.errors import UserError
from visionloop.tasks.detection.architectures import ARCHITECTURES
from visionloop.tasks.detection.initialization import initialize
from visionloop.tasks.huggingface.loading import (
    class_names,
    load_config,
    load_weights,
    match_classes,
    name_classes,
)

# Which parameters learn how fast and which are decayed, by the type of their module and the prefix
# of the backbone.

BACKBONE = "model.backbone."
NORMS = (nn.LayerNorm, nn.modules.batchnorm._BatchNorm)


def parameter_groups(module, backbone_lr_scale, *, decay_biases=False):
    """[{"name", "params", "lr_scale", "weight_decay", "warmup"}]: backbone and the rest, each decayed or not.

    Never decayed: norms; biases outside the backbone unless `decay_biases` (the authors decay those
    of L and X). Unlike the authors, whose regular expressions miss them, we leave out the
    backbone's norms and affine scalars too.
    """
    norms = {
        id(parameter)
        for layer in module.modules()
        if isinstance(layer, NORMS)
        for parameter in layer.parameters()
    }
    groups = {}
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


def recomputed_blocks(module):
    """Decoder layers, and the backbone's stages where their BatchNorm is frozen: a trained one would count its statistics twice."""
    stages = (
        list(module.model.backbone.model.encoder.stages)
        if module.config.freeze_backbone_batch_norms
        else []
    )
    return [*module.model.decoder.layers, *stages]


# The rows of a detector that belong to classes, carried over by name.

# parameters with one row per class; the embedding of the denoising queries has one more, for
# padding
CLASS_ROWS = re.compile(
    r"(^|\.)(enc_score_head|class_embed\.\d+|denoising_class_embed)\.(weight|bias)$"
)


@torch.no_grad()
def carry_weights(trained, module):
    """Copy every weight of `trained` into `module`, whose classes may be others; class rows by name, the rest stays as drawn.

    Returns the names of the classes whose rows were carried over. (The authors' code maps rows by
    an id table, which mangles the heads when the numbers of classes differ: src/solver/_solver.py
    of `Peterande/D-FINE`.)
    """
    wanted = class_names(module.config) or []
    rows = match_classes(class_names(trained.config), wanted)
    new, old = list(rows.keys()), list(rows.values())
    source = trained.state_dict()
    for name, tensor in module.state_dict().items():
        if CLASS_ROWS.search(name):
            tensor[new] = source[name][old]
        elif name in source:
            tensor.copy_(source[name])
        else:
            assert name.endswith("num_batches_tracked"), f"{name} is missing in the trained weights"
    return [wanted[i] for i in new]


# The library's D-FINE with a forward of our own: autocast for the convolutions alone, and what our
# criterion reads as answer.


class DFineForObjectDetection(transformers.DFineForObjectDetection):
    """The library's network; its own loss never runs.

    The name is the library's, because `save_pretrained` writes the name of the class into
    config.json.
    """

    def forward(self, pixel_values, labels=None):
        """pixel_values: [B, 3, H, W] in 0..1, H and W multiples of 32; labels: [{"class_labels": [G], "boxes": [G, 4]}] or None.

        Returns the library's DFineModelOutput, in fp32: all heads in train mode, with denoising
        queries for `labels`; the last layer alone in eval mode. Backbone and encoder follow the
        autocast around the call. The decoder never does: under bf16 the library makes anchors in
        bf16, which moves them by up to 1.5 px at 640 px and flips whether they are valid.
        """
        network = self.model
        features = network.backbone.model(pixel_values).feature_maps
        levels = [
            project(feature)
            for project, feature in zip(network.encoder_input_proj, features, strict=True)
        ]
        levels = [level.float() for level in network.encoder(levels).last_hidden_state]
        with torch.autocast(pixel_values.device.type, enabled=False):
            # the library reads the batch size and device of `inputs_embeds`, and nothing else, once
            # the encoder's answer is there
            outputs = network(
                pixel_values=None,
                inputs_embeds=levels[0],
                encoder_outputs=BaseModelOutput(last_hidden_state=levels),
                labels=labels,
            )
        if self.training and outputs.denoising_meta_values is None and self.config.num_denoising:
            # a rank without a box gives this parameter a gradient too; zero times the parameter,
            # which is finite
            outputs.enc_topk_logits = (
                outputs.enc_topk_logits + 0.0 * network.denoising_class_embed.weight.sum()
            )
        return outputs


log = logging.getLogger(__name__)
STEP = 32  # the coarsest level's stride: sides of the input are multiples of it


def build_model(source, classes, *, backbone_bn=None, class_prior=None):
    """The detector of `source` with one class row per name in `classes`, in fp32 on the CPU, in train mode.

    backbone_bn: "trained" or "frozen" statistics, None: as the authors train that size;
    class_prior: the score that classes without a released row start with, None: 0.01, as the
    authors do, and 0.1 for one class alone. Rows of known names are carried over.
    """
    prior = class_prior or (0.1 if len(classes) == 1 else 0.01)
    if not source.weights:
        module = new_model(
            read_config(source.folder) if source.folder else new_config(source.name),
            classes,
            backbone_bn,
            prior,
        )
    else:
        module = load_model(source.folder, backbone_bn)
        if class_names(module.config) != list(classes):
            trained = module
            module = new_model(trained.config, classes, backbone_bn, prior)
            carry_weights(trained, module)
    if not learns_statistics(module.config):
        module.model.backbone.model.embedder.requires_grad_(
            False
        )  # the authors hold the stem of L and X too
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
    module = load_weights(
        DFineForObjectDetection,
        folder,
        config,
        lambda _, name: name.endswith("num_batches_tracked"),
    )
    _read_scales(module, folder)
    _warn_of_broken_keys(module, folder)
    return module


def read_config(folder):
    """The config of a D-FINE folder. Raises UserError for any other model."""
    config = load_config(folder)
    if config.model_type != "d_fine":
        other = (
            " (its heads and losses are others than D-FINE's)"
            if config.model_type.startswith("rt_detr")
            else ""
        )
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
        # the authors train it for N, S and M, whose backbones have learnable affine blocks, and
        # freeze it for L and X
        backbone_bn = "trained" if config.backbone_config.use_learnable_affine_block else "frozen"
    config.freeze_backbone_batch_norms = backbone_bn == "frozen"


def _read_scales(module, folder):
    """The weights know the scale of the edge distributions; a converted config may not."""
    for name in ("reg_scale", "up"):
        stored = getattr(module.model.decoder, name).item()
        if abs(stored - getattr(module.config, name)) > 1e-6:
            log.warning(
                "%s: config.json has %s %s, the weights %s, which counts",
                folder,
                name,
                getattr(module.config, name),
                stored,
            )
            setattr(module.config, name, stored)


def _warn_of_broken_keys(module, folder):
    """Early copies of the nano weights had the values' projection in the place of the keys' (transformers issue 40253)."""
    for layer in module.model.decoder.layers:
        if torch.equal(layer.self_attn.k_proj.weight, layer.self_attn.v_proj.weight):
            log.warning(
                "%s: a decoder layer has equal key and value projections, a broken early copy; fetch the weights anew",
                folder,
            )
            return
