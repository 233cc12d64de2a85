"""What of a trained EoMT follows the data and the settings: class rows, queries, joint blocks."""

import logging

import torch
from torch import nn

from visionloop.engine.errors import UserError
from visionloop.tasks.class_rows import match_classes
from visionloop.tasks.library import class_names, name_classes

log = logging.getLogger(__name__)


@torch.no_grad()
def fit_classes(module, classes):
    """Give `module` one row per name in `classes`; rows of known names are carried over, and so is the row of "no object", the last.

    New rows are drawn as the library draws a linear layer of EoMT. Returns the names whose rows were carried over.
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
    """A query finds one class of a picture: with fewer of them than classes, a picture that holds more has some that nothing learns."""
    if num_queries < len(classes):
        log.warning(
            "--num-queries %d: fewer than the %d classes; where a picture holds more than %d of them, some go unlearned",
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
