"""Training at several sizes: which one a step has, and the batch brought to it."""

import random

from torch.nn import functional as F

STEP = 32  # sides stay multiples of the network's coarsest stride


def sizes_around(base, repeats):
    """The sides that training draws from: 75 to 125 % of `base` in steps of 32, and `base` itself `repeats` times; [base] for 0.

    As configs/dfine/include/dataloader.yml and src/data/dataloader.py of `Peterande/D-FINE`: 480 .. 800 around 640.
    """
    if not repeats:
        return [base]
    lowest, highest = -(-base * 3 // 4 // STEP) * STEP, base * 5 // 4 // STEP * STEP
    return [side for side in range(lowest, highest + 1, STEP) if side != base] + [base] * repeats


def draw_size(sizes):
    """One of the sides, from `random`, which the engine seeds by (seed, step): one size on all ranks."""
    return random.choice(sizes)


def resize_batch(pixels, size):
    """pixels: float [B, 3, S, S] -> [B, 3, size, size], bilinear; boxes are shares of the sides and stay as they are."""
    if pixels.shape[-1] == size:
        return pixels
    return F.interpolate(pixels, size=(size, size), mode="bilinear", align_corners=False)
