"""Random weights as Swin2SR's authors draw them.

Source: `_init_weights` in models/network_swin2sr.py of `mv-lab/swin2sr`, which knows Linear and LayerNorm alone. The library draws the
convolutions from a normal of 0.02 too, half as wide as theirs for 24 channels.
"""

import torch
from torch import nn


@torch.no_grad()
def initialize(module):
    """Draw all convolutions anew, as torch does by default. Linear layers and norms are as the library has drawn them."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            layer.reset_parameters()
