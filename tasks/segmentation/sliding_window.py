"""Images of any size through a network that reads squares: overlapping windows along the longer side.

Source: `window_imgs_semantic` and `revert_window_logits_semantic` in training/lightning_module.py
of `tue-mps/eomt`.
"""

import math

import torch
from torch.nn import functional as F

MOST_WINDOWS = 16  # that go through the network at once
STRIP = 2**24  # scores that are resized at once: 64 MiB


def window_starts(length, side):
    """Where windows of `side` begin on a length of at least that: as few as cover it, evenly overlapping, the last one ends at the end."""
    count = math.ceil(length / side)
    if count == 1:
        return [0]
    overlap = (count * side - length) / (count - 1)
    return [int(i * (side - overlap)) for i in range(count - 1)] + [length - side]


def cut_windows(image, side):
    """image: [3, h, w] whose shorter side is `side` -> ([3, side, side] views, their starts along the longer side)."""
    along = 1 if image.shape[1] >= image.shape[2] else 2
    starts = window_starts(image.shape[along], side)
    return [image.narrow(along, start, side) for start in starts], starts


def class_scores(mask_logits, class_logits, side):
    """Scores of one window: sum over queries of class probability times mask probability, [K, side, side] in fp32.

    mask_logits: [Q, h, w]; class_logits: [Q, K + 1]. "No object" is a state of a query, not a class
    of pixels.
    """
    masks = F.interpolate(mask_logits.float()[None], size=(side, side), mode="bilinear")[
        0
    ].sigmoid_()
    shares = class_logits.float().softmax(-1)[:, :-1]
    return (shares.T @ masks.flatten(1)).view(-1, side, side)


def semantic_maps(answer, images, sizes_hw, side):
    """Yields, image by image, uint8 [S, H, W]: the class of every pixel by every level that `answer` gives.

    answer(windows, owners) -> (mask logits [N, S, Q, h, w], class logits [N, S, Q, K + 1]) of
    windows [N, 3, side, side], with the number of the image and of the window in it, (i, j), of
    each; images: [3, h, w] each, the shorter side `side`; sizes_hw: of the results. One image's
    scores are held at a time, however many images there are.
    """
    windows = []  # (image, number, start, pixels)
    for i, image in enumerate(images):
        pixels, starts = cut_windows(image, side)
        windows += [
            (i, j, start, window)
            for j, (start, window) in enumerate(zip(starts, pixels, strict=True))
        ]
    canvas = None
    for first in range(0, len(windows), MOST_WINDOWS):
        chunk = windows[first : first + MOST_WINDOWS]
        owners = [(i, j) for i, j, _, _ in chunk]
        mask_logits, class_logits = answer(torch.stack([window for *_, window in chunk]), owners)
        for n, (i, j, start, _) in enumerate(chunk):
            levels = zip(mask_logits[n], class_logits[n], strict=True)
            scores = torch.stack([class_scores(masks, classes, side) for masks, classes in levels])
            if j == 0:
                canvas = Canvas(scores, images[i].shape[1:])
            canvas.add(scores, start)
            last = first + n + 1
            if last == len(windows) or windows[last][0] != i:
                yield torch.stack([resized_argmax(scores, sizes_hw[i]) for scores in canvas.mean()])


class Canvas:
    """The scores of one image, window after window."""

    def __init__(self, scores, size_hw):
        """scores: [S, K, side, side] of a window, for their number and device; size_hw: of the image."""
        self.side, self.along = scores.shape[-1], 0 if size_hw[0] >= size_hw[1] else 1
        self.total = scores.new_zeros(*scores.shape[:2], *size_hw)
        self.counts = scores.new_zeros(*size_hw)

    def add(self, scores, start):
        """scores of the window that begins here along the longer side."""
        self.total.narrow(2 + self.along, start, self.side).add_(scores)
        self.counts.narrow(self.along, start, self.side).add_(1)

    def mean(self):
        """[S, K, h, w]; every place is in at least one window."""
        return self.total.div_(self.counts)


def resized_argmax(scores, size_hw):
    """scores: [K, h, w] -> uint8 [H, W]: the class with the highest bilinearly resized score, at most 255 classes.

    Strip by strip, so that the scores of an image of 4096 px never lie in memory at its full size.
    Scores, not classes, are resized, as the authors do; rows by hand, because a strip must be cut
    where the whole would have been.
    """
    num_classes, height, width = scores.shape
    out_height, out_width = int(size_hw[0]), int(size_hw[1])
    result = torch.empty(out_height, out_width, dtype=torch.uint8, device=scores.device)
    places = (
        (torch.arange(out_height, device=scores.device) + 0.5) * (height / out_height) - 0.5
    ).clamp_(min=0)
    upper = places.long().clamp_(max=height - 1)
    lower, share = (upper + 1).clamp_(max=height - 1), (places - upper)[:, None]
    rows = max(1, STRIP // (num_classes * max(out_width, width)))
    for top in range(0, out_height, rows):
        strip = slice(top, min(top + rows, out_height))
        mixed = torch.lerp(scores[:, upper[strip]], scores[:, lower[strip]], share[strip])
        wide = F.interpolate(mixed[None], size=(mixed.shape[1], out_width), mode="bilinear")[0]
        result[strip] = wide.max(0).indices  # a third of the time of argmax(0) on a CPU
    return result
