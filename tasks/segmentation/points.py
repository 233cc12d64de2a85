"""Points at which masks are compared: random ones near uncertain pixels, or every pixel of a grid.

0.75 P points are the least certain of 3 P random ones, 0.25 P are uniform (PointRend,
arXiv:1912.08193, and Mask2Former, arXiv:2112.01527).

In this module logits are mask logits, targets are the share of a point inside a ground-truth mask
(0..1), and valid is the share of a point that is not ignored. An ignored pixel is in no mask:
targets <= valid. T is the most masks of any image; rows beyond an image's own are zeros.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from visionloop.tasks.segmentation.matcher import Matches

OVERSAMPLING = 3
UNCERTAIN_SHARE = 0.75

# (rows, number, device) -> points (x, y) in 0..1, [rows, number, 2]
DrawPoints = Callable[[int, int, torch.device], torch.Tensor]
# (logits, targets, valid or None)
Samples = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]


class MaskSampler(Protocol):
    """Values of predicted and ground-truth masks, for matching and for the loss."""

    def for_matching(self) -> Samples:
        """Sample all masks of each image at points that they share.

        Returns:
            logits [B, S*Q, P] without gradient, targets [B, T, P], valid [B, P] or None.
        """
        ...

    def for_loss(self, maps: torch.Tensor, matches: Matches) -> Samples:
        """Sample each matched mask at its own points.

        Args:
            maps: mask logits of the N pairs, [N, h, w].
            matches: the pairs.

        Returns:
            logits [N, P] with gradient, targets [N, P], valid [N, P] or None.
        """
        ...


class AllPixels:
    """Compare masks at every pixel of the logits, with ground-truth masks averaged down.

    Nothing is drawn, and borders weigh no more than areas.
    """

    def __init__(
        self,
        mask_logits: torch.Tensor,
        masks: Sequence[torch.Tensor],
        valid: torch.Tensor | None,
    ) -> None:
        self.logits = mask_logits.detach().flatten(3).flatten(1, 2).float()  # [B, S*Q, h*w]
        size = mask_logits.shape[-2:]
        averaged = [
            F.interpolate(image_masks[None], size=size, mode="area")[0].flatten(1)
            for image_masks in float_masks(masks, valid)
        ]
        self.targets = pad_sequence(averaged, batch_first=True)  # [B, T, h*w]
        self.valid = None
        if valid is not None:
            self.valid = F.interpolate(valid.float()[:, None], size=size, mode="area").flatten(1)

    def for_matching(self) -> Samples:
        """See MaskSampler."""
        return self.logits, self.targets, self.valid

    def for_loss(self, maps: torch.Tensor, matches: Matches) -> Samples:
        """See MaskSampler."""
        valid = None if self.valid is None else self.valid[matches.images]
        return maps.flatten(1), self.targets[matches.images, matches.targets], valid


class SharedPoints:
    """Compare masks at 3.25 P points per image, among which its matched masks choose theirs.

    About as random as `OwnPoints`, at less cost: each mask's points are distributed as there; those
    of one image depend on each other. One draw: [B, 3.25 P, 2].
    """

    def __init__(
        self,
        mask_logits: torch.Tensor,
        masks: Sequence[torch.Tensor],
        valid: torch.Tensor | None,
        number: int,
        draw: DrawPoints,
    ) -> None:
        self.num_uncertain = int(UNCERTAIN_SHARE * number)
        self.number, self.num_candidates = number, OVERSAMPLING * number
        num_drawn = self.num_candidates + number - self.num_uncertain
        self.points = draw(len(masks), num_drawn, mask_logits.device)
        self.mask_logits = mask_logits
        self.targets = self.points.new_zeros(len(masks), max(map(len, masks)), self.points.shape[1])
        images = zip(self.targets, float_masks(masks, valid), self.points, strict=True)
        for targets, image_masks, points in images:
            targets[: len(image_masks)] = point_sample(image_masks[None], points[None])[0]
        self.valid = None if valid is None else sample_valid(valid, self.points)

    def for_matching(self) -> Samples:
        """See MaskSampler."""
        return (
            sample_all_logits(self.mask_logits, self.points[:, : self.number]),
            self.targets[..., : self.number],
            None if self.valid is None else self.valid[:, : self.number],
        )

    def for_loss(self, maps: torch.Tensor, matches: Matches) -> Samples:
        """See MaskSampler."""
        candidates = self.points[:, : self.num_candidates]
        images = zip(maps.detach().split(matches.sizes), candidates, strict=True)
        logits = torch.cat([point_sample(image_maps[None], p[None])[0] for image_maps, p in images])
        valid = None if self.valid is None else self.valid[matches.images]
        chosen = least_certain(
            logits, None if valid is None else valid[:, : self.num_candidates], self.num_uncertain
        )
        uniform = torch.arange(self.num_candidates, self.points.shape[1], device=maps.device)
        chosen = torch.cat([chosen, uniform.expand(len(chosen), -1)], 1)  # [N, P]
        points = gather_rows(self.points, matches.images, chosen)
        target_rows = matches.images * self.targets.shape[1] + matches.targets
        return (
            point_sample(maps[:, None], points)[:, 0],
            gather_rows(self.targets.flatten(0, 1), target_rows, chosen),
            None if valid is None else valid.gather(1, chosen),
        )


class OwnPoints:
    """Compare masks at P points per image for matching, then at points of each matched mask.

    As transformers and the authors draw them. Three draws: [B, P, 2] for matching, [N, 3 P, 2]
    candidates and [N, 0.25 P, 2] uniform ones for the N pairs in their order.
    """

    def __init__(
        self,
        mask_logits: torch.Tensor,
        masks: Sequence[torch.Tensor],
        valid: torch.Tensor | None,
        number: int,
        draw: DrawPoints,
    ) -> None:
        self.num_uncertain, self.number, self.draw = int(UNCERTAIN_SHARE * number), number, draw
        self.mask_logits, self.valid = mask_logits, valid
        self.masks = pad_sequence(float_masks(masks, valid), batch_first=True)  # [B, T, H, W]

    def for_matching(self) -> Samples:
        """See MaskSampler."""
        points = self.draw(len(self.masks), self.number, self.mask_logits.device)
        valid = None if self.valid is None else sample_valid(self.valid, points)
        return (
            sample_all_logits(self.mask_logits, points),
            point_sample(self.masks, points),
            valid,
        )

    def for_loss(self, maps: torch.Tensor, matches: Matches) -> Samples:
        """See MaskSampler."""
        candidates = self.draw(len(maps), OVERSAMPLING * self.number, maps.device)
        logits = point_sample(maps.detach()[:, None], candidates)[:, 0]
        valid = None if self.valid is None else self.valid[matches.images]  # [N, H, W]
        chosen = least_certain(
            logits, None if valid is None else sample_valid(valid, candidates), self.num_uncertain
        )
        uniform = self.draw(len(maps), self.number - self.num_uncertain, maps.device)
        uncertain = candidates.gather(1, chosen[:, :, None].expand(-1, -1, 2))
        points = torch.cat([uncertain, uniform], 1)  # [N, P, 2]
        masks = self.masks[matches.images, matches.targets][:, None]
        return (
            point_sample(maps[:, None], points)[:, 0],
            point_sample(masks, points)[:, 0],
            None if valid is None else sample_valid(valid, points),
        )


def uniform_points(rows: int, number: int, device: torch.device) -> torch.Tensor:
    """Draw points (x, y) in 0..1 from the device's default generator, [rows, number, 2]."""
    return torch.rand(rows, number, 2, device=device)


def point_sample(maps: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Interpolate maps bilinearly at points; beyond the border they are zero.

    CUDA has no deterministic backward of `grid_sample`. Where deterministic algorithms are
    enabled, values with a gradient are gathered instead, which has one, but takes more memory and
    time.

    Args:
        maps: [N, C, h, w].
        points: (x, y) in 0..1, [N, P, 2].

    Returns:
        [N, C, P].
    """
    if maps.is_cuda and maps.requires_grad and torch.are_deterministic_algorithms_enabled():
        return point_sample_by_gather(maps, points)
    return F.grid_sample(maps, 2 * points[:, :, None] - 1, align_corners=False)[..., 0]


def point_sample_by_gather(maps: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Compute `point_sample` with `gather`."""
    # made on the device: a copy of host numbers would be a host sync
    sizes = torch.cat([points.new_full((1,), side) for side in maps.shape[:1:-1]])  # w, h
    positions = points * sizes - 0.5
    offsets = torch.cartesian_prod(*[torch.arange(2, dtype=points.dtype, device=points.device)] * 2)
    corners = positions.floor()[:, :, None] + offsets  # [N, P, 4, 2]
    weights = (1 - (positions[:, :, None] - corners).abs()).prod(-1)
    weights = weights * ((corners >= 0) & (corners < sizes)).all(-1)
    x, y = corners.clamp_(torch.zeros_like(sizes), sizes - 1).long().unbind(-1)
    index = (y * maps.shape[-1] + x).flatten(1)[:, None]  # [N, 1, 4P]
    values = maps.flatten(2).gather(2, index.expand(-1, maps.shape[1], -1))
    return (values.unflatten(2, (-1, 4)) * weights[:, None]).sum(-1)


def sample_all_logits(mask_logits: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Sample the logits of all queries and levels of an image at its points, without gradient.

    Args:
        mask_logits: [B, S, Q, h, w].
        points: [B, P, 2].

    Returns:
        [B, S*Q, P].
    """
    num_levels = mask_logits.shape[1]
    # level by level: the CPU walks through all maps at each point, and those of one level stay in
    # its cache
    values = point_sample(
        mask_logits.detach().flatten(0, 1).float(), points.repeat_interleave(num_levels, 0)
    )
    return values.unflatten(0, (-1, num_levels)).flatten(1, 2)


def sample_valid(valid: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Return the share of each point's pixels that is not ignored.

    Args:
        valid: bool [N, H, W].
        points: [N, P, 2].

    Returns:
        [N, P], 0..1.
    """
    valid = valid.float()
    shares, inside = point_sample(torch.stack([valid, torch.ones_like(valid)], 1), points).unbind(1)
    return shares / inside  # a point at the border is half outside


def least_certain(logits: torch.Tensor, valid: torch.Tensor | None, number: int) -> torch.Tensor:
    """Return the positions of the `number` logits nearest to zero in each row, in any order.

    Args:
        logits: [N, M].
        valid: [N, M] or None; ignored points come last.
        number: at most M.

    Returns:
        int64 [N, number].
    """
    certainty = logits.abs()
    if valid is not None:
        certainty = certainty.masked_fill_(valid <= 0, torch.inf)
    if certainty.device.type == "cpu" and number:  # torch's takes four times as long here
        order = np.argpartition(certainty.numpy(), number - 1, axis=1)
        return torch.from_numpy(order[:, :number])
    return certainty.topk(number, 1, largest=False, sorted=False).indices


def gather_rows(values: torch.Tensor, rows: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Return values[rows[n], positions[n, p]]; a plain index takes three times as long on a CPU.

    Args:
        values: [R, M, ...].
        rows: int64 [N].
        positions: int64 [N, P].

    Returns:
        [N, P, ...].
    """
    index = rows[:, None] * values.shape[1] + positions
    return values.flatten(0, 1).index_select(0, index.flatten()).unflatten(0, positions.shape)


def float_masks(masks: Sequence[torch.Tensor], valid: torch.Tensor | None) -> list[torch.Tensor]:
    """Return the ground-truth masks of each image in float32, zero where a pixel is ignored."""
    if valid is None:
        return [image_masks.float() for image_masks in masks]
    return [image_masks.float() * v for image_masks, v in zip(masks, valid, strict=True)]
