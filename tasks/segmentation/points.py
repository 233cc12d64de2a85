"""Where masks are compared: at random points that crowd where an answer is unsure, or at every pixel of the answer's grid.

A way to compare (`AllPixels`, `SharedPoints`, `OwnPoints`) has two methods. `for_matching()` gives
all answers and all true masks of each image at points they share: x [B, S*Q, P], y [B, T, P],
known [B, P] or None. `for_loss(maps, pairs)` gives matched answers [N, h, w] and their true masks
at points of their own: x [N, P] with gradient, y [N, P], known [N, P] or None.

x are logits, y the share of true pixels at a point, 0..1. known is the share of pixels that are not
ignored, and an ignored pixel is in no mask: y <= known. T is the most masks of any image, rows
beyond an image's own are zeros. Sources: PointRend (arXiv 1912.08193) and Mask2Former
(2112.01527): 0.75 P points are the least certain of 3 P, 0.25 P are anywhere.
"""

import numpy as np
import torch
from torch.nn import functional as F

OVERSAMPLING = 3
UNSURE_SHARE = 0.75


def uniform_points(rows, number, device):
    """Points (x, y) in 0..1 from the device's default generator: [rows, number, 2]."""
    return torch.rand(rows, number, 2, device=device)


def sample(maps, points):
    """Bilinear values of maps [N, C, h, w] at points [N, P, 2], (x, y) in 0..1, zero beyond the border: [N, C, P].

    CUDA has no deterministic backward of `grid_sample`. Where deterministic algorithms are asked
    for, values with a gradient are gathered instead, which has one; that takes more memory and
    time, hence not always.
    """
    if maps.is_cuda and maps.requires_grad and torch.are_deterministic_algorithms_enabled():
        return sample_by_gather(maps, points)
    return F.grid_sample(maps, 2 * points[:, :, None] - 1, align_corners=False)[..., 0]


def sample_by_gather(maps, points):
    """Like `sample`, written with `gather`."""
    sizes = torch.tensor(maps.shape[:1:-1]).to(points)  # w, h
    place = points * sizes - 0.5
    corners = place.floor()[:, :, None] + torch.cartesian_prod(*[torch.arange(2.0)] * 2).to(
        points
    )  # [N, P, 4, 2]
    shares = (1 - (place[:, :, None] - corners).abs()).prod(-1)
    shares = shares * ((corners >= 0) & (corners < sizes)).all(-1)
    x, y = corners.clamp_(torch.zeros_like(sizes), sizes - 1).long().unbind(-1)
    index = (y * maps.shape[-1] + x).flatten(1)[:, None]  # [N, 1, 4P]
    found = maps.flatten(2).gather(2, index.expand(-1, maps.shape[1], -1))
    return (found.unflatten(2, (-1, 4)) * shares[:, None]).sum(-1)


class AllPixels:
    """Every pixel of the answer's grid, true masks averaged down to it. Nothing is drawn, and borders weigh no more than areas."""

    def __init__(self, mask_logits, masks, valid):
        self.answers = mask_logits.detach().flatten(3).flatten(1, 2).float()  # [B, S*Q, h*w]
        size = mask_logits.shape[-2:]
        down = [
            F.interpolate(maps[None], size=size, mode="area")[0].flatten(1)
            for maps in float_masks(masks, valid)
        ]
        self.truth = torch.nn.utils.rnn.pad_sequence(down, batch_first=True)
        self.known = (
            None
            if valid is None
            else F.interpolate(valid.float()[:, None], size=size, mode="area").flatten(1)
        )

    def for_matching(self):
        return self.answers, self.truth, self.known

    def for_loss(self, maps, pairs):
        known = None if self.known is None else self.known[pairs.images]
        return maps.flatten(1), self.truth[pairs.images, pairs.targets], known


class SharedPoints:
    """3.25 P points for each image. Its matched masks choose among the same candidates: about as random, at less cost.

    Each mask's points are distributed as with `OwnPoints`; those of one image depend on each
    other. One draw: [B, 3.25 P, 2].
    """

    def __init__(self, mask_logits, masks, valid, number, draw):
        self.num_unsure = int(UNSURE_SHARE * number)
        self.number, self.num_candidates = number, OVERSAMPLING * number
        self.points = draw(
            len(masks), self.num_candidates + number - self.num_unsure, mask_logits.device
        )
        self.mask_logits = mask_logits
        self.truth = self.points.new_zeros(len(masks), max(map(len, masks)), self.points.shape[1])
        for truth, maps, points in zip(
            self.truth, float_masks(masks, valid), self.points, strict=True
        ):
            truth[: len(maps)] = sample(maps[None], points[None])[0]
        self.known = None if valid is None else known_at(self.points, valid)

    def for_matching(self):
        known = None if self.known is None else self.known[:, : self.number]
        return (
            sample_predictions(self.mask_logits, self.points[:, : self.number]),
            self.truth[..., : self.number],
            known,
        )

    def for_loss(self, maps, pairs):
        candidates = self.points[:, : self.num_candidates]
        each = zip(maps.detach().split(pairs.sizes), candidates, strict=True)
        doubts = torch.cat([sample(answers[None], points[None])[0] for answers, points in each])
        known = None if self.known is None else self.known[pairs.images]
        chosen = least_certain(
            doubts, None if known is None else known[:, : self.num_candidates], self.num_unsure
        )
        fresh = torch.arange(self.num_candidates, self.points.shape[1], device=maps.device)
        chosen = torch.cat([chosen, fresh.expand(len(chosen), -1)], 1)  # [N, P]
        points = take(self.points, pairs.images, chosen)
        truth = take(
            self.truth.flatten(0, 1), pairs.images * self.truth.shape[1] + pairs.targets, chosen
        )
        return (
            sample(maps[:, None], points)[:, 0],
            truth,
            None if known is None else known.gather(1, chosen),
        )


class OwnPoints:
    """P points for each image to match by, then points for each matched mask alone, as the library and the authors draw them.

    Three draws: [B, P, 2] to match by, [N, 3 P, 2] candidates and [N, 0.25 P, 2] more for the N
    pairs in their order.
    """

    def __init__(self, mask_logits, masks, valid, number, draw):
        self.num_unsure, self.number, self.draw = int(UNSURE_SHARE * number), number, draw
        self.mask_logits, self.valid = mask_logits, valid
        self.masks = torch.nn.utils.rnn.pad_sequence(
            float_masks(masks, valid), batch_first=True
        )  # [B, T, H, W]

    def for_matching(self):
        points = self.draw(len(self.masks), self.number, self.mask_logits.device)
        known = None if self.valid is None else known_at(points, self.valid)
        return sample_predictions(self.mask_logits, points), sample(self.masks, points), known

    def for_loss(self, maps, pairs):
        candidates = self.draw(len(maps), OVERSAMPLING * self.number, maps.device)
        doubts = sample(maps.detach()[:, None], candidates)[:, 0]
        valid = None if self.valid is None else self.valid[pairs.images]
        chosen = least_certain(
            doubts, None if valid is None else known_at(candidates, valid), self.num_unsure
        )
        fresh = self.draw(len(maps), self.number - self.num_unsure, maps.device)
        points = torch.cat([candidates.gather(1, chosen[:, :, None].expand(-1, -1, 2)), fresh], 1)
        truth = sample(self.masks[pairs.images, pairs.targets][:, None], points)[:, 0]
        return (
            sample(maps[:, None], points)[:, 0],
            truth,
            None if valid is None else known_at(points, valid),
        )


def sample_predictions(mask_logits, points):
    """All answers [B, S, Q, h, w] of an image at its points [B, P, 2], without gradient: [B, S*Q, P]."""
    num_levels = mask_logits.shape[1]
    # level by level: the CPU walks through all maps at each point, and those of one level stay in
    # its cache
    found = sample(
        mask_logits.detach().flatten(0, 1).float(), points.repeat_interleave(num_levels, 0)
    )
    return found.unflatten(0, (-1, num_levels)).flatten(1, 2)


def take(values, rows, places):
    """Of values [R, M, ...] those of rows [N] at places [N, P]: [N, P, ...]. A plain index takes three times as long on a CPU."""
    index = rows[:, None] * values.shape[1] + places
    return values.flatten(0, 1).index_select(0, index.flatten()).unflatten(0, places.shape)


def float_masks(masks, valid):
    """The true masks of each image in float32, without pixels that are ignored."""
    if valid is None:
        return [maps.float() for maps in masks]
    return [maps.float() * known for maps, known in zip(masks, valid, strict=True)]


def known_at(points, valid):
    """The share of the image's pixels at points [N, P, 2] that valid [N, H, W] does not leave out: [N, P]."""
    valid = valid.float()
    known, inside = sample(torch.stack([valid, torch.ones_like(valid)], 1), points).unbind(1)
    return known / inside  # a point at the border lies half beyond it


def least_certain(logits, known, number):
    """Places of the `number` logits nearest to zero in each row of [N, M], as int64 [N, number] in no order; ignored ones come last."""
    doubts = logits.abs()
    if known is not None:
        doubts = doubts.masked_fill_(known <= 0, torch.inf)
    if doubts.device.type == "cpu" and number:  # torch's takes four times as long here
        return torch.from_numpy(np.argpartition(doubts.numpy(), number - 1, axis=1)[:, :number])
    return doubts.topk(number, 1, largest=False, sorted=False).indices
