"""Another image size for a trained model: the grid of position embeddings, resized once."""

import torch
from torch import nn

from visionloop.engine.errors import UserError
from visionloop.tasks.huggingface.positions import check_patch, resize_grid

# These add one learned vector per patch. Others convolve, have positions relative to a window, or
# (dinov2) interpolate in every forward.
WITH_POSITION_GRID = ("vit", "deit")


def set_image_size(module, size):
    """Make `module` read images of size x size. Returns True when position embeddings were resized.

    Writes config.image_size and the sizes that the embeddings remember, so that training runs
    without interpolating each step and the exported folder agrees with itself.
    """
    config = module.config
    patch = check_patch(config, size)
    old = getattr(config, "image_size", size)
    old_hw = (old, old) if isinstance(old, int) else tuple(old)
    if old_hw == (size, size):
        return False
    if config.model_type == "beit":
        raise UserError(
            f"--image-size {size}: beit's relative positions are for {old_hw[0]} px and cannot be resized",
            field="image_size",
        )
    if config.model_type not in WITH_POSITION_GRID:
        return False  # its config keeps the old size, which the shapes of its weights may follow
    embeddings = module.base_model.embeddings
    positions = embeddings.position_embeddings
    grid_hw = old_hw[0] // patch, old_hw[1] // patch
    num_special = positions.shape[1] - grid_hw[0] * grid_hw[1]
    with torch.no_grad():
        embeddings.position_embeddings = nn.Parameter(
            resize_grid(positions, num_special, grid_hw, (size // patch, size // patch))
        )
    config.image_size = size
    embeddings.image_size = (size, size)
    embeddings.patch_embeddings.image_size = (size, size)
    embeddings.patch_embeddings.num_patches = (size // patch) ** 2
    return True
