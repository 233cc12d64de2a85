"""Scores of super-resolution and restoration, computed from one row for each image."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from visionloop.metrics.image_quality import (
    WINDOW,
    has_fast_float64,
    mean_squared_error,
    mean_ssim,
    psnr_of,
)
from visionloop.metrics.lpips import SMALLEST_SIDE, Lpips
from visionloop.metrics.rows import Array, Columns, Inputs, RowTable, weighted_sum

# The largest value of an image in a mean of PSNR. Equal images have infinite PSNR, and one of
# them (a plain sky, a clean input left alone) would make the mean of a whole dataset infinite: no
# evaluation would be better than another, and json has no such number. The literature's code does
# one of two things: it keeps inf (cszn/KAIR utils/utils_image.py), or counts equal images as 100
# dB (YT3DVision/APANet common/psnr.py). This module does the second, and for all above it:
# otherwise an image with one value of 200 000 off by one would score more than a perfect one.
# Networks reach 20 to 60 dB, so that no published number is touched.
HIGHEST_PSNR = 100.0

SCORES = ("psnr", "ssim", "psnr_rgb", "ssim_rgb", "lpips")
BICUBIC_SCORES = ("bicubic_psnr", "bicubic_ssim")

NO_ROWS = {"sample_ids": np.empty(0, np.int64), "has_loss": np.empty(0, np.bool_)}
NO_ROWS |= {name: np.empty(0, np.float64) for name in (*SCORES, *BICUBIC_SCORES, "val_loss")}


class SuperResolutionMetric:
    """Means over images of PSNR and SSIM on Y and on RGB, of LPIPS and of the loss.

    PSNR and SSIM of bicubic interpolation are computed as well. Y, border and window: see
    metrics/image_quality.py. LPIPS takes the whole image, as in XPixelGroup/BasicSR
    scripts/metrics/calculate_lpips.py. An image that is too small for a score (SSIM: a side below
    11 without the border; PSNR: nothing left; LPIPS: a side below 31) has nan there and is left out
    of that mean. In means of PSNR an image counts at most 100 dB; `per_image` returns it as it is,
    inf too. Any distribution of the images over processes gives the same bits.
    """

    def __init__(self, border: int, lpips: Lpips | None = None) -> None:
        """Make an empty metric.

        Args:
            border: pixels cut off each side: the scale in the literature, 0 at x1 and real-world.
            lpips: the LPIPS network, or None to leave this score out.
        """
        self.border, self.lpips = border, lpips
        self._table = RowTable(NO_ROWS)

    def update(self, predictions: Inputs, batch: Inputs) -> None:
        """Score the images of a batch, each where float64 is fast; one host sync for all scores.

        Args:
            predictions: {"images": B uint8 [3, H, W]}; optionally "losses": float [B].
            batch: {"hr", "bicubic": B uint8 [3, H, W] each, or larger: the upper left part counts,
                "sample_ids": int [B]}.

        Raises:
            ValueError: where "hr" or "bicubic" is smaller than the prediction.
        """
        images, losses = predictions["images"], predictions.get("losses")
        rows = [
            self._measure(*row) for row in zip(images, batch["hr"], batch["bicubic"], strict=True)
        ]
        columns: dict[str, object] = dict(read_scores(rows))
        columns["sample_ids"] = batch["sample_ids"].detach().cpu().numpy()
        columns["val_loss"] = (
            np.full(len(rows), np.nan) if losses is None else losses.detach().cpu().numpy()
        )
        columns["has_loss"] = np.full(len(rows), losses is not None)
        self._table.append(columns)

    def state(self) -> Columns:
        """Return {column: array [N]}: one row for each image, sorted by sample id."""
        return dict(self._table.sorted_columns())

    def merge(self, states: Sequence[Columns]) -> None:
        """Replace the content by these states, in any order."""
        self._table.replace(states)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._table)

    def compute(self, picks: Array | None = None) -> dict[str, float]:
        """Compute the scores of the images at `picks`.

        Args:
            picks: positions in the order of sample ids, where repeats count again; None: all.

        Returns:
            "psnr", "ssim", "psnr_rgb", "ssim_rgb", "lpips" with its network, and "val_loss" when
            every image has a loss; nan where no image has the score.
        """
        columns, weights = self._table.sorted_columns(), self._table.weights(picks)
        scores = {
            name: mean_score(name, columns[name], weights)
            for name in SCORES
            if name != "lpips" or self.lpips is not None
        }
        if len(self) and columns["has_loss"].all():
            total = weighted_sum(columns["val_loss"], weights)
            scores["val_loss"] = float(total / (weights.sum() or np.nan))
        return scores

    def bicubic_scores(self) -> dict[str, float]:
        """Return "bicubic PSNR" and "bicubic SSIM" on Y, of the input itself at x1."""
        columns, weights = self._table.sorted_columns(), self._table.weights(None)
        return {
            f"bicubic {name.split('_')[1].upper()}": mean_score(name, columns[name], weights)
            for name in BICUBIC_SCORES
        }

    def per_image(self) -> Columns:
        """Return "sample_ids", the keys of `compute`, "bicubic_psnr" and "bicubic_ssim".

        An array [N] each, sorted by sample id; nan where an image is too small for a score.
        """
        columns = self._table.sorted_columns()
        names = ("sample_ids", *self.compute(), *BICUBIC_SCORES)
        return {name: columns[name].copy() for name in names}

    def _measure(
        self, prediction: torch.Tensor, hr: torch.Tensor, bicubic: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Return {score: scalar} of one image, mean squared errors in the place of PSNR.

        A score that the image is too small for is missing.
        """
        height, width = prediction.shape[-2:]
        hr, bicubic = (image[..., :height, :width].to(prediction.device) for image in (hr, bicubic))
        if not hr.shape == bicubic.shape == prediction.shape:
            sizes = f"{tuple(hr.shape)} and {tuple(bicubic.shape)}"
            raise ValueError(
                f"hr and bicubic: expected {tuple(prediction.shape)} or larger, got {sizes}"
            )
        ours, target, baseline = (image.permute(1, 2, 0) for image in (prediction, hr, bicubic))
        if not has_fast_float64(prediction.device):
            ours, target, baseline = (image.cpu() for image in (ours, target, baseline))
        scores = {}
        if self.lpips is not None and min(height, width) >= SMALLEST_SIDE:
            self.lpips.to(prediction.device)  # moves nothing after the first image
            scores["lpips"] = self.lpips(prediction[None], hr[None])[0].to(ours.device)
        inner_side = min(height, width) - 2 * self.border
        for name, measure, smallest in (
            ("psnr", mean_squared_error, 1),
            ("ssim", mean_ssim, WINDOW),
        ):
            if inner_side < smallest:
                continue
            for column, image, channel in (
                (name, ours, "y"),
                (f"{name}_rgb", ours, "rgb"),
                (f"bicubic_{name}", baseline, "y"),
            ):
                scores[column] = measure(image, target, border=self.border, channel=channel)
        return scores


def read_scores(rows: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, Array]:
    """Read {score: float64 [B]} of `_measure` of B images at once; nan where one is missing."""
    scores = {name: np.full(len(rows), np.nan) for name in (*SCORES, *BICUBIC_SCORES)}
    places = [(name, i) for i, row in enumerate(rows) for name in row]
    if not places:
        return scores
    values = torch.stack([rows[i][name].double() for name, i in places]).tolist()
    for (name, i), value in zip(places, values, strict=True):
        scores[name][i] = psnr_of(value) if "psnr" in name else value
    return scores


def mean_score(name: str, values: Array, weights: Array) -> float:
    """Return the weighted mean over the images that have the score; nan where there is none.

    Args:
        name: of the score; values of PSNR are limited to HIGHEST_PSNR.
        values: float64 [N], nan where an image has no score.
        weights: int64 [N], how often each image counts.
    """
    counted = (weights > 0) & ~np.isnan(values)
    values, weights = values[counted], weights[counted]
    if "psnr" in name:
        values = np.minimum(values, HIGHEST_PSNR)
    return float((values * weights).sum() / (weights.sum() or np.nan))
