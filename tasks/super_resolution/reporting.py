"""What super-resolution shows of a run: the drawing and telling hooks of its task."""

import math
from typing import ClassVar

from visionloop.engine.metric import MetricSpec
from visionloop.tasks.reporting import PictureReporting
from visionloop.tasks.super_resolution.draw import draw_batch, draw_samples


class SuperResolutionReporting(PictureReporting):
    """Input, bicubic, result and truth of the part with most detail; PSNR picture by picture."""

    sample_score = MetricSpec("picture_psnr", "PSNR", "float", True, "dB on Y of the whole picture, without its border")
    score_charts: ClassVar = {"PSNR": ("psnr", "psnr_rgb"), "SSIM": ("ssim", "ssim_rgb")}
    score_column = "psnr"

    def draw(self, batch):
        return {"batch": draw_batch(batch)}

    def draw_samples(self, batch, predictions):
        return draw_samples(batch, predictions, self.scale, self.border)

    def reference_scores(self, metric):
        # at x1 nothing is known of what finished pictures were restored from
        return {name: score for name, score in metric.bicubic_scores().items() if not math.isnan(score)}
