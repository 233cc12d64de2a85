"""Attention rollout of a ViT (Abnar and Zuidema 2020, arXiv:2005.00928, section 3).

The maps show which patches the class token attends to through all layers.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import PreTrainedModel

from visionloop.engine.errors import UserError
from visionloop.tasks.drawing.canvas import fit_to

# model types with one class token first and a full square of patches in every layer
MODEL_TYPES = ("vit", "deit", "dinov2", "vit_msn")
SIDE = 320  # longer side of a drawn image, in pixels


def attention_rollout(attentions: Sequence[torch.Tensor]) -> torch.Tensor:
    """Multiply the attention of all layers, with half of each replaced by the identity.

    The identity represents the residual branch; rows are normalized before the product.

    Args:
        attentions: one tensor [B, heads, T, T] per layer whose rows sum to 1.

    Returns:
        [B, T, T], the share of input token j in output token i.
    """
    rollout = None
    for attention in attentions:
        mean = attention.float().mean(dim=1)  # [B, T, T]
        layer = mean + torch.eye(mean.shape[-1], device=mean.device)
        layer = layer / layer.sum(dim=-1, keepdim=True)
        rollout = layer if rollout is None else layer @ rollout
    assert rollout is not None, "a model has at least one layer"
    return rollout


@torch.no_grad()
def attention_maps(module: PreTrainedModel, pixel_values: torch.Tensor) -> torch.Tensor:
    """Compute the rollout from the class token to every patch.

    Args:
        pixel_values: the normalized input, [B, 3, S, S].

    Returns:
        [B, h, w], each map scaled to 0..1.

    Raises:
        UserError: the model type is not one of MODEL_TYPES.
    """
    config = module.config
    if config.model_type not in MODEL_TYPES:
        raise UserError(
            f"--attention: rollout works with {', '.join(MODEL_TYPES)};"
            f" this model is a {config.model_type}",
            field="attention",
        )
    implementation = config._attn_implementation
    module.set_attn_implementation("eager")  # the fused kernels do not return the weights
    try:
        attentions = module(pixel_values=pixel_values, output_attentions=True).attentions
    finally:
        module.set_attn_implementation(implementation)
    height, width = (side // config.patch_size for side in pixel_values.shape[-2:])
    rollout = attention_rollout(attentions)[:, 0, -height * width :]  # special tokens come first
    low, high = rollout.min(dim=1, keepdim=True).values, rollout.max(dim=1, keepdim=True).values
    return ((rollout - low) / (high - low).clamp(min=1e-12)).view(-1, height, width)


def draw_attention(
    module: PreTrainedModel, pixel_values: torch.Tensor, images: torch.Tensor
) -> list[NDArray[np.uint8]]:
    """Draw each image next to its attention rollout.

    Args:
        pixel_values: the normalized input, [B, 3, S, S].
        images: the same before normalization, uint8 [B, 3, S, S].

    Returns:
        One uint8 array [H, W, 3] per image.
    """
    drawings = []
    maps = attention_maps(module, pixel_values).cpu().numpy()
    for image, values in zip(images.cpu(), maps, strict=True):
        resized = fit_to(image.permute(1, 2, 0).numpy(), longest=SIDE)
        smooth = Image.fromarray((255 * values).astype(np.uint8)).resize(
            resized.shape[1::-1], Image.Resampling.BICUBIC
        )
        strength = np.asarray(smooth, dtype=np.float32)[..., None] / np.float32(255)
        drawings.append(np.concatenate([resized, _overlay(resized, strength)], axis=1))
    return drawings


def _overlay(image: NDArray[np.uint8], strength: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Blend from dark gray, without attention, to the image with a red glow.

    Args:
        image: uint8 [H, W, 3].
        strength: float [H, W, 1] in 0..1.

    Returns:
        uint8 [H, W, 3].
    """
    gray = image.mean(axis=2, keepdims=True) * 0.35
    glow = 0.75 * image + 0.25 * np.array((255, 40, 0))
    return np.clip(gray * (1 - strength) + glow * strength, 0, 255).astype(np.uint8)
