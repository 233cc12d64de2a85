"""How many boxes the denoising queries are made of."""

import torch


def cap_targets(targets, most):
    """The targets with at most `most` boxes in each picture, chosen at random from torch's default generator.

    The library makes 2 * (boxes of the fullest picture) queries at least: with 600 boxes 1200 more, and attention over 1500 of them.
    Chosen on the host, which the engine seeds by (seed, step, offset). Returns None where nothing would be left to denoise.
    """
    if most == 0 or not any(len(target["class_labels"]) for target in targets):
        return None
    capped = []
    for target in targets:
        number = len(target["class_labels"])
        if number > most:
            picks = torch.randperm(number)[:most].sort().values.to(target["boxes"].device)
            target = {name: values[picks] for name, values in target.items()}
        capped.append(target)
    return capped
