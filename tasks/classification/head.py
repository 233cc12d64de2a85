"""The classification head: finding it, fitting it to the data's classes, carrying rows over by name."""

import torch
from torch import nn

from visionloop.tasks.library import class_names, name_classes


def find_heads(module):
    """[(name, Linear)] with one output per class, outside the trunk.

    One for all kinds but the distilled DeiT, which averages two. Its name differs between models (`classifier`, `classifier.1`).
    """
    trunk = {id(layer) for layer in module.base_model.modules()}
    heads = [
        (name, layer)
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear) and id(layer) not in trunk and layer.out_features == module.config.num_labels
    ]
    assert heads, f"{type(module).__name__} has no Linear with {module.config.num_labels} outputs outside its trunk"
    return heads


def fit_head(module, classes, *, zero=False):
    """Give `module` one output per name in `classes`; the trunk stays bit-equal. Returns "kept", "carried" or "new".

    The same names in the same order keep the head; another order, or a part of them, takes the rows over by name; anything
    else starts a new head (truncated normal 0.02, as the library draws it, or zeros).
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
