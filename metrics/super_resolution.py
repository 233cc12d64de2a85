"""Scores of super-resolution and restoration, kept per image so that any sharding gives the same bits."""

import math

import numpy as np

from visionloop.metrics.image_quality import WINDOW, psnr, ssim
from visionloop.metrics.lpips import SMALLEST_SIDE

# What an image counts at most in a mean of PSNR. Equal images have infinite PSNR, and one of
# them (a plain sky, a clean input left alone) would make the mean of a whole dataset infinite: no
# evaluation would be better than another, and json has no such number. The literature's code does
# one of two things: it keeps inf (cszn/KAIR utils/utils_image.py), or counts equal images as 100
# dB (YT3DVision/APANet common/psnr.py). We do the second, and for all above it: otherwise an image
# with one value of 200 000 off by one would score more than a perfect one. Networks reach 20 to 60
# dB, so that no published number is touched.
HIGHEST_PSNR = 100.0

SCORES = ("psnr", "ssim", "psnr_rgb", "ssim_rgb", "lpips")
BICUBIC_SCORES = ("bicubic_psnr", "bicubic_ssim")


class SuperResolutionMetric:
    """Means over images of PSNR and SSIM on Y, the same on RGB, LPIPS when its network is given, and the loss; bicubic beside them.

    Y, border, window: metrics/image_quality.py. LPIPS sees the whole image, as in
    XPixelGroup/BasicSR scripts/metrics/calculate_lpips.py. An image that is too small for a score
    (SSIM: a side below 11 without the border; PSNR: nothing left; LPIPS: a side below 31) has nan
    there and is left out of that mean. In means of PSNR an image counts at most 100 dB;
    `per_image` shows it as it is, inf too.
    """

    def __init__(self, border, lpips=None):
        """border: pixels cut off each side, the scale in the literature, and 0 at x1 and real-world; lpips: a `Lpips` or None."""
        self.border, self.lpips = border, lpips
        self._batches = []  # column dicts as they came
        self._table = None  # all of them as one, sorted by sample id; None when out of date

    def update(self, predictions, batch):
        """Score a batch, each image where it lies.

        predictions: {"images": B uint8 [3, H, W]} and, or not, "losses": float [B]. batch: {"hr",
        "bicubic": B uint8 [3, H, W] each, or larger: the top left part counts, "sample_ids": int
        [B]}. Raises ValueError where they are smaller.
        """
        images, losses = predictions["images"], predictions.get("losses")
        rows = [
            self._score(*row) for row in zip(images, batch["hr"], batch["bicubic"], strict=True)
        ]
        columns = {name: [row[name] for row in rows] for name in (*SCORES, *BICUBIC_SCORES)}
        columns["sample_ids"] = batch["sample_ids"].detach().cpu().numpy()
        columns["val_loss"] = (
            np.full(len(rows), np.nan) if losses is None else losses.detach().cpu().numpy()
        )
        columns["has_loss"] = np.full(len(rows), losses is not None)
        self._append(columns)

    def state(self):
        """{column: array}: one row per image, sorted by sample id."""
        return dict(self._rows())

    def merge(self, states):
        """Replace the content by that of these states, in any order."""
        self._batches, self._table = [], None
        for state in states:
            self._append(state)

    def __len__(self):
        return sum(len(columns["sample_ids"]) for columns in self._batches)

    def compute(self, picks=None):
        """{"psnr", "ssim", "psnr_rgb", "ssim_rgb", "lpips" when there is a network for it, "val_loss" when every image came with one}.

        picks: positions in the order of sample ids, repeats count again; None: all. nan where no
        image has the score.
        """
        rows, count = self._rows(), len(self)
        weights = (
            np.ones(count, dtype=np.int64)
            if picks is None
            else np.bincount(np.asarray(picks, dtype=np.int64), minlength=count)
        )
        scores = {
            name: mean_score(name, rows[name], weights)
            for name in SCORES
            if name != "lpips" or self.lpips is not None
        }
        if count and rows["has_loss"].all():
            drawn = weights > 0  # zero times a nan would be nan
            scores["val_loss"] = float(
                (rows["val_loss"][drawn] * weights[drawn]).sum() / (weights.sum() or np.nan)
            )
        return scores

    def bicubic_scores(self):
        """{"bicubic PSNR", "bicubic SSIM"}: on Y, of the same images enlarged without a network; at x1, of the input itself."""
        rows, weights = self._rows(), np.ones(len(self), dtype=np.int64)
        return {
            f"bicubic {name.split('_')[1].upper()}": mean_score(name, rows[name], weights)
            for name in BICUBIC_SCORES
        }

    def per_image(self):
        """{"sample_ids", the names of `compute`, "bicubic_psnr", "bicubic_ssim"}: an array each, sorted by sample id.

        nan where an image is too small for a score.
        """
        rows = self._rows()
        shown = ("sample_ids", *self.compute(), *BICUBIC_SCORES)
        return {name: rows[name].copy() for name in shown}

    def _score(self, prediction, hr, bicubic):
        """{score: float} of one image, nan where it is too small."""
        height, width = prediction.shape[-2:]
        hr, bicubic = (image[..., :height, :width].to(prediction.device) for image in (hr, bicubic))
        if not hr.shape == bicubic.shape == prediction.shape:
            sizes = f"{tuple(hr.shape)} and {tuple(bicubic.shape)}"
            raise ValueError(
                f"hr and bicubic: expected {tuple(prediction.shape)} or larger, got {sizes}"
            )
        ours, truth, plain = (image.permute(1, 2, 0) for image in (prediction, hr, bicubic))
        inside = min(height, width) - 2 * self.border
        scores = {"lpips": self._lpips_score(prediction, hr)}
        for name, measure, smallest in (("psnr", psnr, 1), ("ssim", ssim, WINDOW)):
            for column, image, channel in (
                (name, ours, "y"),
                (f"{name}_rgb", ours, "rgb"),
                (f"bicubic_{name}", plain, "y"),
            ):
                fits = inside >= smallest
                scores[column] = (
                    measure(image, truth, border=self.border, channel=channel) if fits else math.nan
                )
        return scores

    def _lpips_score(self, prediction, hr):
        if self.lpips is None or min(prediction.shape[-2:]) < SMALLEST_SIDE:
            return math.nan
        self.lpips.to(prediction.device)  # nothing to do after the first image
        return self.lpips(prediction[None], hr[None]).item()

    def _append(self, columns):
        self._batches.append(
            {
                column: np.asarray(columns[column], dtype=none.dtype)
                for column, none in no_rows().items()
            }
        )
        self._table = None

    def _rows(self):
        if self._table is None:
            whole = {
                column: np.concatenate([none, *(batch[column] for batch in self._batches)])
                for column, none in no_rows().items()
            }
            order = np.argsort(whole["sample_ids"], kind="stable")
            self._table = {column: values[order] for column, values in whole.items()}
        return self._table


def no_rows():
    """The columns without a row."""
    columns = {"sample_ids": np.empty(0, np.int64), "has_loss": np.empty(0, np.bool_)}
    return columns | {
        name: np.empty(0, np.float64) for name in (*SCORES, *BICUBIC_SCORES, "val_loss")
    }


def mean_score(name, values, weights):
    """Mean over the images that have the score, each as often as its weight says; nan where there is none."""
    counted = (weights > 0) & ~np.isnan(values)
    values, weights = values[counted], weights[counted]
    if "psnr" in name:
        values = np.minimum(values, HIGHEST_PSNR)
    return float((values * weights).sum() / (weights.sum() or np.nan))
