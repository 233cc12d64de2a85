"""Random weights with the structure that trained ViTs turn out to have (Trockman and Kolter 2023, arXiv:2305.09828).

On small data it does what a longer training would. MLPs and patch embedding start at a scale that
suits their width, as in the ViT authors' own code; the library draws everything with 0.02, which is
right for a width of 768 and holds narrow models on a plateau.
"""

import math

import torch
from torch import nn

# how much noise and how much identity: query-key product, value-output product; the paper's values
# for small ViTs
QUERY_KEY = (0.7, 0.7)
VALUE_OUTPUT = (0.4, -0.4)
POSITION_SCALE = 0.3  # ours: patch embeddings start small, full-size sines would drown them


@torch.no_grad()
def mimetic_layers(layers, num_heads, output):
    """Rewrite the attention and MLP weights of new ViT layers, drawing from torch's main generator. output: name of the last projection.

    Per head, the query-key product starts near the identity (a patch attends to patches like
    itself), and the product of values and output projection near its negative.
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
def mimetic_embeddings(patches, positions):
    """Rewrite a patch filter [hidden, 3, patch, patch] and the position embeddings [side * side, hidden] of the patches.

    Positions start as sines and cosines, so that patches that are alike also are near.
    """
    nn.init.trunc_normal_(patches, std=patches[0].numel() ** -0.5)
    positions.copy_(POSITION_SCALE * sine_positions(math.isqrt(len(positions)), positions.shape[1]))


def _factors(size, rank, noise, identity):
    """Two matrices [rank, size] whose product A^T B is the best of that rank for noise * Z + identity * I, Z of variance 1 / size."""
    target = noise * torch.randn(size, size) / math.sqrt(size) + identity * torch.eye(size)
    left, values, right = torch.linalg.svd(target)
    roots = values[:rank].sqrt()
    return (left[:, :rank] * roots).T, roots[:, None] * right[:rank]


def sine_positions(side, hidden):
    """[side * side, hidden]: sines and cosines of x in one half, of y in the other (as in MAE and DeiT III)."""
    frequencies = 1 / 10_000 ** (torch.arange(hidden // 4) / (hidden // 4))
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    waves = [
        function(place.flatten()[:, None] * frequencies)
        for place in (x, y)
        for function in (torch.sin, torch.cos)
    ]
    return torch.cat(waves, dim=1)
