"""Position embeddings and patch filter of a trained ViT, resampled for other sizes."""

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from visionloop.tasks.huggingface.positions import check_patch, resize_grid


@torch.no_grad()
def set_image_size(module: PreTrainedModel, size: int) -> None:
    """Make an EoMT read images of size x size.

    The network of transformers has one size, and loading a table of another size would replace all
    positions by random ones. Raises UserError when the size is no multiple of the patch size.
    """
    config = module.config
    check_patch(config, size)
    if size == config.image_size:
        return
    grid_hw = (size // config.patch_size,) * 2
    embeddings = module.embeddings
    # DINOv3 has no table: it rotates keys and queries, whatever the size
    if hasattr(embeddings, "position_embeddings"):
        table = resize_table(
            embeddings.position_embeddings.weight,
            (config.image_size // config.patch_size,) * 2,
            grid_hw,
        )
        embeddings.position_embeddings = nn.Embedding(*table.shape)
        embeddings.position_embeddings.weight.copy_(table)
        embeddings.register_buffer("position_ids", torch.arange(len(table))[None], persistent=False)
        embeddings.patch_embeddings.image_size = (size, size)
        embeddings.patch_embeddings.num_patches = len(table)
    module.grid_size = grid_hw
    config.image_size = size


def resize_table(
    table: torch.Tensor, old_hw: tuple[int, int], new_hw: tuple[int, int]
) -> torch.Tensor:
    """Resize position embeddings [h*w, C] to [H*W, C], bicubic with antialias as the authors do.

    The same grid is returned unchanged.
    """
    return table if old_hw == new_hw else resize_grid(table[None], 0, old_hw, new_hw)[0]


def resample_patches(weight: torch.Tensor, side: int) -> torch.Tensor:
    """Resample a patch filter so that it responds to an enlarged patch as before to the patch.

    With R the bicubic resize, the new filter is pinv(R^T) w, so that <w', R x> = <w, x>. Resizing
    the filter itself, as if it were an image, misses that by far. (FlexiViT, arXiv:2212.08013,
    section 3.4.)

    Args:
        weight: [C, 3, p, p].
        side: of the new patches in pixels.

    Returns:
        [C, 3, side, side].
    """
    old = weight.shape[-1]
    if old == side:
        return weight
    basis = torch.eye(old * old, dtype=torch.float64).reshape(-1, 1, old, old)
    resized = F.interpolate(
        basis, size=(side, side), mode="bicubic", antialias=True, align_corners=False
    )
    resize = resized.flatten(1).T  # R
    resampled = weight.double().flatten(2) @ torch.linalg.pinv(resize.T).T  # [C, 3, side * side]
    return resampled.reshape(*weight.shape[:2], side, side).to(weight.dtype)
