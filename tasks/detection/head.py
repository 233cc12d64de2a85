"""The rows of a detector that belong to classes, carried over by name."""

import re

import torch

from visionloop.tasks.class_rows import match_classes
from visionloop.tasks.library import class_names

# parameters with one row per class; the embedding of the denoising queries has one more, for padding
CLASS_ROWS = re.compile(r"(^|\.)(enc_score_head|class_embed\.\d+|denoising_class_embed)\.(weight|bias)$")


@torch.no_grad()
def carry_weights(trained, module):
    """Copy every weight of `trained` into `module`, whose classes may be others; class rows by name, the rest stays as drawn.

    Returns the names of the classes whose rows were carried over. (The authors' code maps rows by an id table, which mangles the
    heads when the numbers of classes differ: src/solver/_solver.py of `Peterande/D-FINE`.)
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
