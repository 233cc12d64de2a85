"""Random weights with the structure that trained ViTs turn out to have (Trockman and Kolter 2023, arXiv:2305.09828).

On small data it does what a longer training would. MLPs and patch embedding start at a scale that suits their width, as in the ViT
authors' own code; the library draws everything with 0.02, which is right for a width of 768 and holds narrow models on a plateau.
"""

import math

import torch
from torch import nn

from visionloop.engine.errors import UserError

# how much noise and how much identity: query-key product, value-output product; the paper's values for small ViTs
QUERY_KEY = (0.7, 0.7)
VALUE_OUTPUT = (0.4, -0.4)
POSITION_SCALE = 0.3  # ours: patch embeddings start small, full-size sines would drown them


@torch.no_grad()
def mimetic_init(module):
    """Rewrite the weights and the position embeddings of a new ViT or DeiT, drawing from torch's main generator.

    Per head, the query-key product starts near the identity (a patch attends to patches like itself), and the product of values and
    output projection near its negative; positions start as sines and cosines, so that like also means near.
    """
    config = module.config
    if config.model_type not in ("vit", "deit") or config.hidden_size % 4:
        raise UserError(f"--init mimetic: for vit and deit of a width divisible by 4; this is a {config.model_type}", field="init")
    hidden, heads = config.hidden_size, config.num_attention_heads
    width = hidden // heads
    for layer in module.base_model.layers:
        attention = layer.attention
        for head in range(heads):
            rows = slice(head * width, (head + 1) * width)
            query, key = _factors(hidden, width, *QUERY_KEY)
            attention.q_proj.weight[rows], attention.k_proj.weight[rows] = query, key
        value, output = _factors(hidden, hidden, *VALUE_OUTPUT)
        attention.v_proj.weight.copy_(value)
        attention.o_proj.weight.copy_(output.T)
        nn.init.xavier_uniform_(layer.mlp.fc1.weight)
        nn.init.xavier_uniform_(layer.mlp.fc2.weight)
    embeddings = module.base_model.embeddings
    patches = embeddings.patch_embeddings.projection.weight    # [hidden, 3, patch, patch]
    nn.init.trunc_normal_(patches, std=patches[0].numel() ** -0.5)
    positions = embeddings.position_embeddings
    side = config.image_size // config.patch_size
    positions[0, -side * side :] = POSITION_SCALE * sine_positions(side, hidden)    # special tokens come first


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
    waves = [function(place.flatten()[:, None] * frequencies) for place in (x, y) for function in (torch.sin, torch.cos)]
    return torch.cat(waves, dim=1)
