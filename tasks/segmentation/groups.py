"""Which parameters learn how fast: the heads, and the ViT block by block, which waits until the heads have begun.

Source: `configure_optimizers` and `two_stage_warmup_poly_schedule.py` in training/ of `tue-mps/eomt`. Its factor for the blocks before
the joint ones (`lr_mult`, DINOv3) is in a branch that never runs at commit 7bd19dd, so there is none here.
"""

import re

LAYER = re.compile(r"^layers\.(\d+)\.")
NOT_DECAYED = ("query.", "position_embeddings", "cls_token", "register_tokens")  # besides vectors, without `decay_all`


def parameter_groups(module, *, layer_decay, rest=None, warmup=None, decay_all=True):
    """[{"name", "params", "lr_scale", "weight_decay", "warmup", "start"}].

    Block i of N has the share layer_decay^(N - 1 - i) of the rate, embeddings that of block 0, the final norm and the heads all of it.
    rest, warmup: the ViT, its final norm too, keeps still for `rest` steps, then warms up over `warmup`; None: like the heads from the
    start. decay_all: weight decay on every parameter, as the authors have it; otherwise not on vectors, queries, positions and tokens.
    """
    num_layers, groups = len(module.layers), {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        label, share = _place(name, num_layers)
        decayed = decay_all or (parameter.squeeze().ndim > 1 and not any(word in name for word in NOT_DECAYED))
        in_vit = label != "heads"
        group = groups.setdefault((label, decayed), {
            "name": label + ("" if decayed else "_no_decay"),
            "params": [],
            "lr_scale": layer_decay**share,
            "weight_decay": None if decayed else 0.0,
            "warmup": warmup if in_vit else None,
            "start": (rest or 0) if in_vit else 0,
        })
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
