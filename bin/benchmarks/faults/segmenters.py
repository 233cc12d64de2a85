"""The library's EoMT at its smallest, and masks to find."""

CLASSES, BLOCKS, QUERIES, SIDE = 5, 2, 6, 32


def small_config(**fields):
    from transformers import EomtConfig

    trunk = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": SIDE, "patch_size": 8}
    heads = {"num_blocks": BLOCKS, "num_queries": QUERIES, "num_upscale_blocks": 1, "num_labels": CLASSES, "train_num_points": 64}
    return EomtConfig(**trunk | heads | fields)


def small_eomt(**fields):
    """The library's EoMT with random weights."""
    from transformers import EomtForUniversalSegmentation

    return EomtForUniversalSegmentation(small_config(**fields))


def random_masks(*sizes):
    """(masks as floats, class ids) of pictures with so many masks each."""
    import torch

    return [(torch.rand(size, SIDE, SIDE) > 0.5).float() for size in sizes], [torch.randperm(CLASSES)[:size] for size in sizes]
