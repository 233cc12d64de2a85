"""Position embeddings of a trained ViT, resized once for another image size."""

import torch
from torch.nn import functional as F
from transformers import PretrainedConfig

from visionloop.engine.errors import UserError


def resize_grid(
    positions: torch.Tensor, num_special: int, old_hw: tuple[int, int], new_hw: tuple[int, int]
) -> torch.Tensor:
    """Resize a grid of position embeddings, bicubic in fp32; class and register rows are copied.

    Antialiased, which equals timm's resample_abs_pos_embed and matters when shrinking (14 to 10:
    20 % of the field's standard deviation); the interpolation in transformers has none.

    Args:
        positions: [1, num_special + h*w, C].
        num_special: rows before the grid.
        old_hw: h and w of the grid.
        new_hw: H and W of the result.

    Returns:
        [1, num_special + H*W, C].
    """
    special, grid = positions[:, :num_special], positions[:, num_special:]
    grid = grid.float().reshape(1, *old_hw, -1).permute(0, 3, 1, 2)  # [1, C, h, w]
    grid = F.interpolate(grid, size=new_hw, mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([special.float(), grid.flatten(2).mT], dim=1)


def check_patch(config: PretrainedConfig, size: int) -> int:
    """Return the model's patch size in pixels.

    Raises UserError when the image size is no multiple of it: transformers would drop the rest of
    the image silently.
    """
    patch = getattr(config, "patch_size", 1)
    patch = patch if isinstance(patch, int) else patch[0]
    if size % patch:
        raise UserError(
            f"--image-size {size}: expected a multiple of the model's patch size {patch}",
            field="image_size",
        )
    return patch
