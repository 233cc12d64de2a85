"""Scores of super-resolution: names, formats and meanings. Imports no torch."""

from visionloop.engine.metric import MetricSpec

METRICS = (
    MetricSpec(
        "psnr",
        "PSNR",
        "float",
        True,
        "dB on Y without a border as wide as the scale, mean over images",
    ),
    MetricSpec(
        "ssim",
        "SSIM",
        "float",
        True,
        "structural similarity on Y, 11 x 11 Gaussian, the same border, mean over images",
    ),
    MetricSpec(
        "psnr_rgb",
        "PSNR of RGB",
        "float",
        True,
        "dB over the three channels, 1.5 to 3 lower than on Y",
    ),
    MetricSpec("ssim_rgb", "SSIM of RGB", "float", True, "mean over the three channels"),
    MetricSpec(
        "lpips",
        "LPIPS",
        "float",
        False,
        "distance of AlexNet features, v0.1; needs --lpips-weights",
    ),
    MetricSpec(
        "val_loss", "validation loss", "float", False, "the pixel loss of training, of whole images"
    ),
)
# for the images that an evaluation draws
SAMPLE_SCORE = MetricSpec(
    "image_psnr", "PSNR", "float", True, "dB on Y of the whole image, without its border"
)
