"""The loss of the last level, picture by picture, to watch on pictures that were not trained on."""

from copy import copy

import torch

from visionloop.datasets.mask_values import IGNORED
from visionloop.engine.order import hashed


@torch.no_grad()
def losses_of_pictures(criterion, mask_logits, class_logits, batch):
    """float32 [B]: each picture's loss over its own masks and queries, at points that its sample id alone decides.

    mask_logits: [B, S, Q, h, w], of which the last level is read; batch: with fitted_ids uint8 [B, side, side], labels and sample_ids.
    """
    losses, seeded = [], copy(criterion)
    for i, (sample, ids, labels) in enumerate(zip(batch["sample_ids"].tolist(), batch["fitted_ids"], batch["labels"], strict=True)):
        generator = torch.Generator().manual_seed(hashed(sample) >> 1)

        def draw(rows, number, device, generator=generator):
            return torch.rand(rows, number, 2, generator=generator).to(device)

        seeded.draw = draw
        masks = ids == labels[:, None, None]
        found = seeded(mask_logits[i, None, -1:], class_logits[i, None, -1:], [masks], [labels], valid=ids[None] != IGNORED)
        losses.append(found["loss"])
    return torch.stack(losses)
