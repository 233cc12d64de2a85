"""Position embeddings of a classifier resized once for another image size."""

import torch
from torch import nn
from transformers import PreTrainedModel

from visionloop.engine.errors import UserError
from visionloop.tasks.huggingface.positions import check_patch, resize_grid

# Model types that add one learned vector per patch. Others convolve, have positions relative to a
# window, or (dinov2) interpolate in every forward.
WITH_POSITION_GRID = ("vit", "deit")
# they resize one learned vector per patch to the size of the images, in every forward
RESIZING = ("dinov2", "dinov2_with_registers")


def trains_resized_positions(module: PreTrainedModel, size: int) -> bool:
    """Return True where the forward resizes trained position embeddings to this image size."""
    if module.config.model_type not in RESIZING or module.config.image_size == size:
        return False
    positions: torch.Tensor = module.base_model.embeddings.position_embeddings
    return positions.requires_grad


def set_image_size(module: PreTrainedModel, size: int) -> bool:
    """Make a classifier take images of size x size pixels.

    It writes config.image_size and the sizes that the embeddings store, so training does not
    interpolate at each step and the exported folder is consistent.

    Returns:
        True when position embeddings were resized.

    Raises:
        UserError: the patch size does not divide `size`, or the model's position embeddings cannot
            be resized.
    """
    config = module.config
    patch = check_patch(config, size)
    old = getattr(config, "image_size", size)
    old_hw = (old, old) if isinstance(old, int) else tuple(old)
    if old_hw == (size, size):
        return False
    if config.model_type == "beit":
        raise UserError(
            f"--image-size {size}: the relative positions of this beit are for {old_hw[0]} px and"
            " cannot be resized",
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
