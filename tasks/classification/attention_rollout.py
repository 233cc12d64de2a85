"""Attention roll-out of a ViT: where the class token looks (Abnar and Zuidema 2020, arXiv:2005.00928, section 3)."""

import numpy as np
import torch
from PIL import Image

from visionloop.engine.errors import UserError
from visionloop.tasks.drawing.canvas import fit_to

KINDS = (
    "vit",
    "deit",
    "dinov2",
    "vit_msn",
)  # one class token first, then a full square of patches in every layer
SIDE = 320


def roll_out(attentions):
    """attentions: one [B, heads, T, T] per layer, rows sum to 1 -> [B, T, T]: how much of input j reaches output i.

    Mean over heads, half of it replaced by the identity for the residual branch, rows normalised,
    layers multiplied.
    """
    flow = None
    for attention in attentions:
        mean = attention.float().mean(dim=1)  # [B, T, T]
        layer = mean + torch.eye(mean.shape[-1], device=mean.device)
        layer = layer / layer.sum(dim=-1, keepdim=True)
        flow = layer if flow is None else layer @ flow
    return flow


@torch.no_grad()
def attention_maps(module, pixels):
    """pixels: what the network reads, [B, 3, S, S] -> [B, h, w] in 0..1: the class token's roll-out over the patches."""
    config = module.config
    if config.model_type not in KINDS:
        raise UserError(
            f"--attention: roll-out is for {', '.join(KINDS)}; this model is a {config.model_type}",
            field="attention",
        )
    used = config._attn_implementation
    module.set_attn_implementation("eager")  # the fused kernels keep no weights
    try:
        attentions = module(pixel_values=pixels, output_attentions=True).attentions
    finally:
        module.set_attn_implementation(used)
    height, width = (side // config.patch_size for side in pixels.shape[-2:])
    maps = roll_out(attentions)[:, 0, -height * width :].reshape(
        -1, height, width
    )  # special tokens come first
    low, high = (
        reduce(maps.flatten(1), dim=1).values.view(-1, 1, 1) for reduce in (torch.min, torch.max)
    )
    return (maps - low) / (high - low).clamp(min=1e-12)


def draw_attention(module, pixels, images):
    """images: uint8 [B, 3, S, S] as the network saw them -> [uint8 [H, W, 3]]: image and roll-out over it, side by side."""
    drawn = []
    for image, values in zip(
        images.cpu(), attention_maps(module, pixels).cpu().numpy(), strict=True
    ):
        shown = fit_to(image.permute(1, 2, 0).numpy(), longest=SIDE)
        smooth = Image.fromarray((255 * values).astype(np.uint8)).resize(
            shown.shape[1::-1], Image.Resampling.BICUBIC
        )
        drawn.append(
            np.concatenate(
                [shown, _overlay(shown, np.asarray(smooth, dtype=np.float32)[..., None] / 255)],
                axis=1,
            )
        )
    return drawn


def _overlay(image, strength):
    """image: uint8 [H, W, 3]; strength: 0..1 [H, W, 1]. Grey where nothing looks, its colours and a red glow where much does."""
    grey = image.mean(axis=2, keepdims=True) * 0.35
    glow = 0.75 * image + 0.25 * np.array((255, 40, 0))
    return np.clip(grey * (1 - strength) + glow * strength, 0, 255).astype(np.uint8)
