"""What we say of the graphs that are made of the library's D-FINE: compiled and exported ones."""

import logging
from functools import partial

from visionloop.bin.benchmarks.faults.detectors import random_targets, small_detector
from visionloop.bin.benchmarks.faults.report import NOTHING, Claim, failure_of

# two ways to ask a tensor for its rows
ROWS = {"len": len, "shape": lambda values: values.shape[0]}


def graphs_of_compilation():
    import torch

    module, logger = small_detector().train(), logging.getLogger("torch._dynamo")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with torch.no_grad():
            found = torch._dynamo.explain(module.model)(torch.rand(1, 3, 256, 256), labels=random_targets(2))
    finally:
        logger.setLevel(level)
        torch._dynamo.reset()
    return found.graph_count == 25, {"graphs": found.graph_count}


def batch_of_a_graph():
    import warnings

    import torch

    module, pictures = small_detector().eval().requires_grad_(False), torch.rand(2, 3, 256, 256)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        torch.jit.trace(lambda values: module.model(values).intermediate_logits[:, -1], pictures, check_trace=False)
    lengths = sum("Using len to get tensor shape" in str(one.message) for one in heard)
    exported = {name: failure_of(partial(export_of_rows, count), torch._dynamo.exc.UserError) for name, count in ROWS.items()}
    return lengths > 0 and NOTHING == exported["shape"] != exported["len"], {"len in a forward": lengths} | exported


def export_of_rows(count):
    """Export, for any number of rows, a module that asks for the number by `count`."""
    import torch

    class Rows(torch.nn.Module):
        def forward(self, values):
            return values.new_zeros(count(values)) + values[:, 0]

    torch.export.export(Rows(), (torch.rand(3, 2),), dynamic_shapes=({0: torch.export.Dim("rows")},))


CLAIMS = (
    Claim(
        "compiled as a whole it breaks into dozens of graphs",
        (("tasks/detection/README.md", "breaks into dozens of graphs (`tiny`: 25)"),),
        graphs_of_compilation,
    ),
    Claim(
        "len fixes the batch of an exported graph",
        (("tasks/detection/export.py", "the library's forward reads the batch size with `len`, which fixes it in the exported graph"),),
        batch_of_a_graph,
    ),
)
