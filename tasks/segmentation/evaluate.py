"""From what the network says to a class for every pixel of an image, and what the scores mean."""

import torch

from visionloop.engine.metric import MetricSpec
from visionloop.engine.seeding import hashed
from visionloop.tasks.segmentation.sliding_window import semantic_maps

METRICS = (
    MetricSpec(
        "miou",
        "mIoU",
        "percent",
        True,
        "intersection over union, mean over the classes that occur in truth or answer",
    ),
    MetricSpec(
        "pixel_accuracy",
        "pixel accuracy",
        "percent",
        True,
        "share of the pixels that are not ignored",
    ),
    MetricSpec(
        "mean_class_accuracy",
        "mean class accuracy",
        "percent",
        True,
        "share of each class's pixels found, mean over the classes",
    ),
    MetricSpec(
        "val_loss",
        "validation loss",
        "float",
        False,
        "the last level's loss of whole images, resized and padded to a square",
    ),
)


def level_metrics(levels):
    """The MetricSpec of each level's mIoU but the last's, which is `miou`."""
    return tuple(
        MetricSpec(
            f"miou_level_{i}",
            f"mIoU before joint block {i}",
            "percent",
            True,
            "the same score of an earlier level's prediction",
        )
        for i in range(levels)
    )


def predict(module, normalise, batch, side, *, levels=False, losses=None):
    """{"ids": [uint8 [H, W] for each image], "losses": float32 [B] with `losses`, "level_ids": [uint8 [S - 1, H, W]] with `levels`}.

    normalise: uint8 [N, 3, h, w] -> what the network reads; batch: of `collate_eval`; losses(mask
    logits, class logits, batch) -> [B] of the fitted images by the last level. Queries whose
    masks are being lifted are drawn by sample id, so that a score in mid-training depends on
    neither the batch nor the rank.
    """
    ids = batch["sample_ids"].tolist()

    def answer(windows, owners):
        draws = mask_annealing_draws(module, [(ids[i], j) for i, j in owners], windows.device)
        return module(normalise(windows), draws=draws, all_levels=levels)

    maps = list(semantic_maps(answer, batch["pixel_values"], batch["sizes"].tolist(), side))
    found = {"ids": [levels_of_one[-1] for levels_of_one in maps]}
    if levels:
        found["level_ids"] = [levels_of_one[:-1] for levels_of_one in maps]
    if losses is not None:
        fitted = batch["fitted"]
        draws = mask_annealing_draws(module, [(sample, -1) for sample in ids], fitted.device)
        mask_logits, class_logits = module(normalise(fitted), draws=draws)
        found["losses"] = losses(mask_logits, class_logits, batch)
    return found


def mask_annealing_draws(module, keys, device):
    """float32 [N, blocks, Q] in 0..1, each row a function of its key alone; None when no mask is half lifted."""
    if not any(0 < probability < 1 for probability in module.mask_probs):
        return None
    shape = len(module.mask_probs), module.config.num_queries
    rows = [
        torch.rand(shape, generator=torch.Generator().manual_seed(hashed(*key) >> 1))
        for key in keys
    ]
    return torch.stack(rows).to(device)
