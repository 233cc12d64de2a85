"""Sliding-window inference: images of any size through a network that reads squares.

The shorter side of an image is resized to the window's side, and windows overlap along the longer
side. Source: `window_imgs_semantic` and `revert_window_logits_semantic` in
training/lightning_module.py of `tue-mps/eomt`.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch.nn import functional as F

MAX_WINDOWS = 16  # windows in one forward
STRIP = 2**24  # class scores that are resized at once: 64 MiB

# (windows [N, 3, side, side], (image, window of the image) of each) ->
# (mask logits [N, S, Q, h, w], class logits [N, S, Q, K + 1])
WindowForward = Callable[
    [torch.Tensor, Sequence[tuple[int, int]]], tuple[torch.Tensor, torch.Tensor]
]


def semantic_maps(
    forward: WindowForward,
    images: Sequence[torch.Tensor],
    sizes_hw: Sequence[Sequence[int]],
    side: int,
) -> Iterator[torch.Tensor]:
    """Predict the class of every pixel, image by image.

    The scores of one image are in memory at a time, however many images there are.

    Args:
        forward: the network, see WindowForward.
        images: [3, h, w] each, the shorter side `side`.
        sizes_hw: height and width of each result.
        side: of the windows in pixels.

    Yields:
        uint8 [S, H, W] of each image: the class ids by every level that `forward` returns.
    """
    windows = []  # (image, number, start, pixels)
    for i, image in enumerate(images):
        pixels, starts = cut_windows(image, side)
        windows += [
            (i, j, start, window)
            for j, (start, window) in enumerate(zip(starts, pixels, strict=True))
        ]
    canvas = None
    for first in range(0, len(windows), MAX_WINDOWS):
        chunk = windows[first : first + MAX_WINDOWS]
        keys = [(i, j) for i, j, _, _ in chunk]
        mask_logits, class_logits = forward(torch.stack([window for *_, window in chunk]), keys)
        for n, (i, j, start, _) in enumerate(chunk):
            levels = zip(mask_logits[n], class_logits[n], strict=True)
            scores = torch.stack([class_scores(masks, classes, side) for masks, classes in levels])
            if j == 0 or canvas is None:
                canvas = Canvas(scores, images[i].shape[1:])
            canvas.add(scores, start)
            following = first + n + 1
            if following == len(windows) or windows[following][0] != i:
                mean = canvas.mean()
                yield torch.stack([resized_argmax(level, sizes_hw[i]) for level in mean])


def window_starts(length: int, side: int) -> list[int]:
    """Return where windows of `side` pixels start on a length of at least that.

    As few windows as cover the length, evenly overlapping; the last one ends at the end.
    """
    count = math.ceil(length / side)
    if count == 1:
        return [0]
    overlap = (count * side - length) / (count - 1)
    return [int(i * (side - overlap)) for i in range(count - 1)] + [length - side]


def cut_windows(image: torch.Tensor, side: int) -> tuple[list[torch.Tensor], list[int]]:
    """Cut an image [C, h, w], whose shorter side is `side`, into square windows.

    Returns:
        (views [C, side, side], their starts along the longer side).
    """
    along = 1 if image.shape[1] >= image.shape[2] else 2
    starts = window_starts(image.shape[along], side)
    return [image.narrow(along, start, side) for start in starts], starts


def class_scores(mask_logits: torch.Tensor, class_logits: torch.Tensor, side: int) -> torch.Tensor:
    """Sum class probability times mask probability over the queries of one window, in fp32.

    "No object" is a state of a query, not a class of pixels.

    Args:
        mask_logits: [Q, h, w].
        class_logits: [Q, K + 1].
        side: of the window in pixels.

    Returns:
        [K, side, side].
    """
    resized = F.interpolate(mask_logits.float()[None], size=(side, side), mode="bilinear")[0]
    masks = resized.sigmoid_()
    probabilities = class_logits.float().softmax(-1)[:, :-1]
    return (probabilities.T @ masks.flatten(1)).view(-1, side, side)


class Canvas:
    """The mean of the scores of overlapping windows over one image.

    Args:
        scores: [S, K, side, side] of a window, for shape and device.
        size_hw: height and width of the image.
    """

    def __init__(self, scores: torch.Tensor, size_hw: Sequence[int]) -> None:
        self.side, self.along = scores.shape[-1], 0 if size_hw[0] >= size_hw[1] else 1
        self.total = scores.new_zeros(*scores.shape[:2], *size_hw)
        self.counts = scores.new_zeros(*size_hw)

    def add(self, scores: torch.Tensor, start: int) -> None:
        """Add the scores of the window that starts here along the longer side."""
        self.total.narrow(2 + self.along, start, self.side).add_(scores)
        self.counts.narrow(self.along, start, self.side).add_(1)

    def mean(self) -> torch.Tensor:
        """Return [S, K, h, w]; every pixel is in at least one window."""
        return self.total.div_(self.counts)


def resized_argmax(scores: torch.Tensor, size_hw: Sequence[int]) -> torch.Tensor:
    """Return the class with the highest bilinearly resized score at every pixel.

    Strip by strip, so that the scores of an image of 4096 px are never in memory at its full size.
    Scores, not classes, are resized, as the authors do. Rows are interpolated explicitly, because
    the strips must have the sample positions of the whole image.

    Args:
        scores: [K, h, w], at most 255 classes.
        size_hw: height and width of the result.

    Returns:
        uint8 [H, W].
    """
    num_classes, height, width = scores.shape
    out_height, out_width = int(size_hw[0]), int(size_hw[1])
    result = torch.empty(out_height, out_width, dtype=torch.uint8, device=scores.device)
    centers = torch.arange(out_height, device=scores.device) + 0.5
    positions = (centers * (height / out_height) - 0.5).clamp_(min=0)
    upper = positions.long().clamp_(max=height - 1)
    lower, weight = (upper + 1).clamp_(max=height - 1), (positions - upper)[:, None]
    rows = max(1, STRIP // (num_classes * max(out_width, width)))
    for top in range(0, out_height, rows):
        strip = slice(top, min(top + rows, out_height))
        mixed = torch.lerp(scores[:, upper[strip]], scores[:, lower[strip]], weight[strip])
        wide = F.interpolate(mixed[None], size=(mixed.shape[1], out_width), mode="bilinear")[0]
        result[strip] = wide.max(0).indices  # a third of the time of argmax(0) on a CPU
    return result
