"""Another image size for a trained model: the grid of position embeddings, resized once."""

import torch
from torch.nn import functional as F

from visionloop.engine.errors import UserError


def resize_grid(positions, num_special, old_hw, new_hw):
    """positions: [1, num_special + h*w, C] -> [1, num_special + H*W, C], bicubic in fp32; class and distillation rows kept.

    Antialiased, which equals timm's resample_abs_pos_embed and matters when shrinking (14 -> 10: 20
    % of the field's standard deviation); the library's own interpolation has none.
    """
    special, grid = positions[:, :num_special], positions[:, num_special:]
    grid = grid.float().reshape(1, *old_hw, -1).permute(0, 3, 1, 2)  # [1, C, h, w]
    grid = F.interpolate(grid, size=new_hw, mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([special.float(), grid.flatten(2).mT], dim=1)


def check_patch(config, size):
    """The model's patch size in pixels. Raises UserError when `size` is no multiple: the library would drop the rest silently."""
    patch = getattr(config, "patch_size", 1)
    patch = patch if isinstance(patch, int) else patch[0]
    if size % patch:
        raise UserError(
            f"--image-size {size}: expected a multiple of the model's patch size {patch}",
            field="image_size",
        )
    return patch
