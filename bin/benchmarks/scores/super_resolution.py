"""PSNR and SSIM by others: scikit-image and torchmetrics, the same six scores of each image as ours.

Y, RGB, and bicubic's Y, without the border. Ours and scikit-image compute in float64 on 0..255;
torchmetrics in float32, as it is used: its convolutions in float64 take thirty times as long. Its
own mean of SSIM takes in positions of the window that reach into a mirrored border: its map is cut
to those inside.
"""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch

from visionloop.bin.benchmarks.scores.sides import Own, Side, as_it_is
from visionloop.metrics.image_quality import WINDOW, to_luma
from visionloop.metrics.super_resolution import SuperResolutionMetric

CLASSES = 2  # there are none
BORDER, REACH = 2, WINDOW // 2
SCORES = {
    "psnr": ("image", "y"),
    "psnr_rgb": ("image", "rgb"),
    "bicubic_psnr": ("bicubic", "y"),
}


@dataclass(frozen=True)
class Answers:
    """Smooth random images, and two noisy copies of each."""

    device: torch.device
    start: int
    count: int
    classes: int
    side: int

    def make(self):
        """(predictions, batch) as SuperResolutionMetric takes them."""
        generator = torch.Generator().manual_seed(self.start)
        coarse = 255 * torch.rand(
            self.count, 3, self.side // 8 + 1, self.side // 8 + 1, generator=generator
        )
        smooth = torch.nn.functional.interpolate(
            coarse, size=(self.side, self.side), mode="bilinear"
        )
        noisy = (
            smooth + deviation * torch.randn(smooth.shape, generator=generator)
            for deviation in (0, 4, 9)
        )
        hr, images, bicubic = (
            pixels.round().clamp(0, 255).to(torch.uint8).to(self.device) for pixels in noisy
        )
        ids = torch.arange(self.start, self.start + self.count)
        return {"images": list(images)}, {
            "hr": list(hr),
            "bicubic": list(bicubic),
            "sample_ids": ids,
        }


def sides(classes, libraries):
    """{name: Side}."""
    own = Side(
        "ours: tiles in float64",
        lambda: OwnScores(SuperResolutionMetric(BORDER)),
        as_it_is,
        against=None,
        tolerance=None,
    )
    does = "scikit-image: peak_signal_noise_ratio and structural_similarity (Gaussian, sigma 1.5, population covariance), Y by rgb2ycbcr"
    found = {"ours": own, "scikit-image": Side(does, ScikitImage, as_arrays, tolerance=1e-8)}
    if "torchmetrics" in libraries:
        does = "torchmetrics: PeakSignalNoiseRatio by image, SSIM's map without its mirrored border, float32; Y by our own code"
        found["torchmetrics"] = Side(does, Torchmetrics, as_planes, tolerance=1e-3)
    return found


class OwnScores(Own):
    """Ours, with the means of bicubic beside its scores."""

    def __init__(self, metric):
        super().__init__(metric)
        self.compute = self.all_scores

    def all_scores(self):
        bicubic = self.metric.bicubic_scores()
        return self.metric.compute() | {
            "bicubic_psnr": bicubic["bicubic PSNR"],
            "bicubic_ssim": bicubic["bicubic SSIM"],
        }


class ScikitImage:
    """Image by image. prepared: [{"image", "bicubic", "hr": uint8 [H, W, 3]}]."""

    def __init__(self):
        self.scores = defaultdict(list)

    def update(self, prepared):
        from skimage.color import rgb2ycbcr
        from skimage.metrics import peak_signal_noise_ratio, structural_similarity

        window = {
            "gaussian_weights": True,
            "sigma": 1.5,
            "use_sample_covariance": False,
            "data_range": 255,
        }
        for images in prepared:
            inside = {name: image[BORDER:-BORDER, BORDER:-BORDER] for name, image in images.items()}
            planes = {"y": {name: rgb2ycbcr(image)[..., 0] for name, image in inside.items()}}
            planes["rgb"] = {name: inside[name].astype(np.float64) for name in ("image", "hr")}
            for name, (which, channel) in SCORES.items():
                pair, axis = (
                    (planes[channel][which], planes[channel]["hr"]),
                    -1 if channel == "rgb" else None,
                )
                self.scores[name].append(peak_signal_noise_ratio(*pair[::-1], data_range=255))
                self.scores[name.replace("psnr", "ssim")].append(
                    structural_similarity(*pair, channel_axis=axis, **window)
                )

    def compute(self):
        return {name: np.mean(values) for name, values in self.scores.items()}


class Torchmetrics:
    """A batch at a time. prepared: {"image", "bicubic", "hr": uint8 [B, 3, H, W]}."""

    def __init__(self):
        from torchmetrics.image import PeakSignalNoiseRatio

        self.ratios = {
            name: PeakSignalNoiseRatio(
                data_range=255.0, reduction="elementwise_mean", dim=(1, 2, 3)
            )
            for name in SCORES
        }
        self.similarities = defaultdict(list)

    def update(self, prepared):
        from torchmetrics.functional.image import structural_similarity_index_measure

        inside = {
            name: pixels[..., BORDER:-BORDER, BORDER:-BORDER] for name, pixels in prepared.items()
        }
        planes = {"rgb": {name: inside[name].float() for name in ("image", "hr")}}
        planes["y"] = {
            name: torch.stack([to_luma(one.permute(1, 2, 0)) for one in pixels])[:, None].float()
            for name, pixels in inside.items()
        }
        for name, (which, channel) in SCORES.items():
            pair = planes[channel][which], planes[channel]["hr"]
            self.ratios[name].to(pair[0].device).update(*pair)
            _, at_pixels = structural_similarity_index_measure(
                *pair, sigma=1.5, data_range=255.0, return_full_image=True
            )
            self.similarities[name] += (
                at_pixels[..., REACH:-REACH, REACH:-REACH].mean((1, 2, 3)).tolist()
            )

    def compute(self):
        found = {name: metric.compute() for name, metric in self.ratios.items()}
        return found | {
            name.replace("psnr", "ssim"): np.mean(values)
            for name, values in self.similarities.items()
        }


def as_planes(predictions, batch):
    return {
        "image": torch.stack(predictions["images"]),
        **{name: torch.stack(batch[name]) for name in ("bicubic", "hr")},
    }


def as_arrays(predictions, batch):
    """Each image with its channels last, as these libraries want them."""
    columns = {"image": predictions["images"], "bicubic": batch["bicubic"], "hr": batch["hr"]}
    rows = zip(*columns.values(), strict=True)
    return [
        {
            name: image.permute(1, 2, 0).cpu().numpy()
            for name, image in zip(columns, row, strict=True)
        }
        for row in rows
    ]
