"""Which parameters learn how fast and which are decayed, by the type of their module and the prefix of the backbone."""

from torch import nn

BACKBONE = "model.backbone."
NORMS = (nn.LayerNorm, nn.modules.batchnorm._BatchNorm)


def parameter_groups(module, backbone_lr_scale, *, decay_biases=False):
    """[{"name", "params", "lr_scale", "weight_decay", "warmup"}]: backbone and the rest, each decayed or not.

    Never decayed: norms; biases outside the backbone unless `decay_biases` (the authors decay those of L and X). Unlike the authors,
    whose regular expressions miss them, we leave out the backbone's norms and affine scalars too.
    """
    norms = {id(parameter) for layer in module.modules() if isinstance(layer, NORMS) for parameter in layer.parameters()}
    groups = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        in_backbone = name.startswith(BACKBONE)
        is_bias = parameter.ndim == 1 and id(parameter) not in norms
        decayed = id(parameter) not in norms and (not is_bias or (decay_biases and not in_backbone))
        label = ("backbone" if in_backbone else "detector") + ("" if decayed else "_no_decay")
        group = groups.setdefault(label, {
            "name": label,
            "params": [],
            "lr_scale": backbone_lr_scale if in_backbone else 1.0,
            "weight_decay": None if decayed else 0.0,
            "warmup": None,
        })
        group["params"].append(parameter)
    return list(groups.values())


def recomputed_blocks(module):
    """Decoder layers, and the backbone's stages where their BatchNorm is frozen: a trained one would count its statistics twice."""
    stages = list(module.model.backbone.model.encoder.stages) if module.config.freeze_backbone_batch_norms else []
    return [*module.model.decoder.layers, *stages]
