"""Mimetic initialization of a ViT (Trockman and Kolter 2023, arXiv:2305.09828).

Random weights get the structure that trained ViTs turn out to have, which on small data does what a
longer training would. MLPs and patch embedding start at a scale that suits their width, as in the
code of the ViT authors; transformers draws everything with 0.02, which is right for a width of 768
and holds narrow models on a plateau.
"""

import math
from collections.abc import Iterable

import torch
from torch import nn
from transformers import PreTrainedModel

# (noise, identity) of the query-key product and of the value-output product: the paper's values for
# small ViTs
QUERY_KEY = (0.7, 0.7)
VALUE_OUTPUT = (0.4, -0.4)
POSITION_SCALE = 0.3  # ours: patch embeddings start small, full-size sines would drown them


@torch.no_grad()
def mimetic_layers(layers: Iterable[PreTrainedModel], num_heads: int, output: str) -> None:
    """Initialize the attention and the MLP of ViT layers in place, from torch's CPU generator.

    Per head, the query-key product starts near the identity (a patch attends to patches like
    itself), and the product of values and output projection near its negative.

    Args:
        layers: blocks of a ViT of transformers.
        num_heads: attention heads of each.
        output: name of the last projection of their attention.
    """
    for layer in layers:
        attention = layer.attention
        hidden = attention.q_proj.in_features
        width = hidden // num_heads
        for head in range(num_heads):
            rows = slice(head * width, (head + 1) * width)
            query, key = _factors(hidden, width, *QUERY_KEY)
            attention.q_proj.weight[rows], attention.k_proj.weight[rows] = query, key
        value, projection = _factors(hidden, hidden, *VALUE_OUTPUT)
        attention.v_proj.weight.copy_(value)
        getattr(attention, output).weight.copy_(projection.T)
        nn.init.xavier_uniform_(layer.mlp.fc1.weight)
        nn.init.xavier_uniform_(layer.mlp.fc2.weight)


@torch.no_grad()
def mimetic_embeddings(patches: torch.Tensor, positions: torch.Tensor) -> None:
    """Initialize the patch filter and the position embeddings of a ViT in place.

    Positions start as sines and cosines, so that similar patches are near each other.

    Args:
        patches: patch filter [hidden, 3, patch, patch].
        positions: position embeddings of the patches [side * side, hidden].
    """
    nn.init.trunc_normal_(patches, std=patches[0].numel() ** -0.5)
    positions.copy_(POSITION_SCALE * sine_positions(math.isqrt(len(positions)), positions.shape[1]))


def sine_positions(side: int, hidden: int) -> torch.Tensor:
    """Return sines and cosines of x in one half and of y in the other, [side * side, hidden].

    As in MAE and DeiT III.
    """
    frequencies = 1 / 10_000 ** (torch.arange(hidden // 4) / (hidden // 4))
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    waves = [
        function(position.flatten()[:, None] * frequencies)
        for position in (x, y)
        for function in (torch.sin, torch.cos)
    ]
    return torch.cat(waves, dim=1)


def _factors(
    size: int, rank: int, noise: float, identity: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return A and B, both [rank, size], whose product A^T B is closest to a random matrix.

    That matrix is noise * Z + identity * I, with Z of variance 1 / size.
    """
    target = noise * torch.randn(size, size) / math.sqrt(size) + identity * torch.eye(size)
    left, values, right = torch.linalg.svd(target)
    roots = values[:rank].sqrt()
    return (left[:, :rank] * roots).T, roots[:, None] * right[:rank]
