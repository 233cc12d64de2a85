"""Other sizes of images and of patches for a trained model: its position table and its patch filter, resampled once."""

import torch
from torch import nn
from torch.nn import functional as F

from visionloop.tasks.huggingface.positions import check_patch, resize_grid


def resize_table(table, old_hw, new_hw):
    """[h*w, C] -> [H*W, C], bicubic with antialias as the authors' code resizes it; the same grid is left bit for bit."""
    return table if old_hw == new_hw else resize_grid(table[None], 0, old_hw, new_hw)[0]


@torch.no_grad()
def set_image_size(module, size):
    """Make an EoMT read images of size x size. Raises UserError when that is no multiple of its patch.

    The library's network has one size, and loading a table of another would draw all positions
    anew.
    """
    config = module.config
    check_patch(config, size)
    if size == config.image_size:
        return
    grid_hw = (size // config.patch_size,) * 2
    embeddings = module.embeddings
    if hasattr(
        embeddings, "position_embeddings"
    ):  # DINOv3 turns keys and queries instead, whatever the size
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


def resample_patches(weight, side):
    """The filter [C, 3, p, p] for patches of `side` pixels that answers to an enlarged patch as the old one did to the patch.

    With R the bicubic resize, the new filter is pinv(R^T) w, so that <w', R x> = <w, x>. Resizing
    the filter itself, as if it were an image, misses that by far. (FlexiViT, arXiv:2212.08013,
    section 3.4.)
    """
    old = weight.shape[-1]
    if old == side:
        return weight
    basis = torch.eye(old * old, dtype=torch.float64).reshape(-1, 1, old, old)
    resize = (
        F.interpolate(basis, size=(side, side), mode="bicubic", antialias=True, align_corners=False)
        .flatten(1)
        .T
    )  # R
    resampled = weight.double().flatten(2) @ torch.linalg.pinv(resize.T).T  # [C, 3, side * side]
    return resampled.reshape(*weight.shape[:2], side, side).to(weight.dtype)
