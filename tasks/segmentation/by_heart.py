"""Pictures to learn by heart, at the scale at which they are scored: what the windows of an evaluation show, with the truth in them."""

import torch

from visionloop.datasets.segmentation_transforms import nearest
from visionloop.tasks.segmentation.windows import cut_windows


def window_samples(sample, side):
    """[a sample for `collate_eval` of each window]. sample: of evaluation, with targets; side: of a window, in pixels.

    Of the whole picture, fitted into one square, a longer picture's network would learn things at a scale that it is never asked about.
    """
    height, width = sample["pixel_values"].shape[1:]
    rows, columns = (nearest(0, shown, size) for shown, size in zip(sample["ids"].shape, (height, width), strict=True))
    ids = torch.from_numpy(sample["ids"].numpy().take(rows, axis=0).take(columns, axis=1))
    pixels, _ = cut_windows(sample["pixel_values"], side)
    masks, _ = cut_windows(ids[None], side)
    size = torch.tensor([side, side])
    return [
        sample | {"pixel_values": window, "fitted": window, "ids": mask[0], "fitted_ids": mask[0], "size": size}
        for window, mask in zip(pixels, masks, strict=True)
    ]
