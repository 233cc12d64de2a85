"""The library's detector at its smallest, and boxes to find."""

CLASSES = 3


def small_detector(**fields):
    """The library's D-FINE at our smallest size, with random weights."""
    from transformers import DFineForObjectDetection

    from visionloop.tasks.detection.model import new_config

    config = new_config("tiny")
    config.num_labels = CLASSES
    for name, value in fields.items():
        setattr(config, name, value)
    return DFineForObjectDetection(config)


def random_targets(*sizes):
    """Pictures with so many boxes each."""
    import torch

    def boxes(number):
        return torch.cat([0.2 + 0.6 * torch.rand(number, 2), 0.05 + 0.3 * torch.rand(number, 2)], -1)

    return [{"class_labels": torch.randint(0, CLASSES, (number,)), "boxes": boxes(number)} for number in sizes]
