"""The losses of Swin2SR: between pixels, of the auxiliary image, and of what a Gaussian takes away.

Sources: models/loss.py of `cszn/KAIR` (Charbonnier) and arXiv 2209.11345, section 3 (the two
others, whose weights its authors did not publish). The library has no loss at all.
"""

import torch
from torch.nn import functional as F

EPS = 1e-9**0.5  # Charbonnier's, in grey levels of 0..1: KAIR adds 1e-9 under the root
SIGMA, RADIUS = 1.0, 2  # of the Gaussian, in pixels: 5 x 5


class SuperResolutionCriterion:
    """Distance of the image to the true one, and where their weights are above 0 the auxiliary and the frequency term.

    kind: "l1" or "charbonnier", sqrt(d^2 + eps^2), of the pixel term; the two others are L1.
    aux_weight: of the distance between the auxiliary image and the true one at the input's size,
    bicubic with antialiasing. frequency_weight: of the distance between what a 5x5 Gaussian takes
    away from each. scale: how many times larger than the input the image is.
    """

    def __init__(
        self, kind="l1", *, charbonnier_eps=EPS, aux_weight=0.0, frequency_weight=0.0, scale=1
    ):
        if kind not in ("l1", "charbonnier"):
            raise ValueError(f"kind of loss: expected l1 or charbonnier, got {kind!r}")
        self.kind, self.charbonnier_eps, self.scale = kind, charbonnier_eps, scale
        self.aux_weight, self.frequency_weight = aux_weight, frequency_weight

    def __call__(self, outputs, hr, count=None):
        """{"loss", "loss_pixel"} and where used "loss_aux", "loss_frequency": terms unweighted, "loss" their weighted sum, fp32.

        outputs: {"sr": [B, 3, H, W], "aux": [B, 3, H / s, W / s] or None}; hr: the true images
        [B, 3, H, W] in 0..1.

        count: {"pixels": B * H * W of the optimizer step / ranks}: a sum over pixels and channels
        is divided by 3 * pixels, the auxiliary one by 3 * pixels / s^2, so that micro-batches add
        up, and ranks average, to the mean over the whole batch. None: that of this call.
        """
        with torch.autocast(hr.device.type, enabled=False):
            hr = hr.float()
            difference = outputs["sr"].float() - hr
            numbers = hr.numel() if count is None else 3 * count["pixels"]
            total = pixel = self._distances(difference).sum() / numbers
            terms = {"loss_pixel": pixel}
            if self.aux_weight and outputs["aux"] is not None:
                terms["loss_aux"] = self._aux_distance(outputs["aux"].float(), hr) / (
                    numbers / self.scale**2
                )
                total = total + self.aux_weight * terms["loss_aux"]
            if self.frequency_weight:
                terms["loss_frequency"] = high_frequencies(difference).abs().sum() / numbers
                total = total + self.frequency_weight * terms["loss_frequency"]
            return {"loss": total, **terms}

    def _distances(self, difference):
        if self.kind == "l1":
            return difference.abs()
        return (difference.square() + self.charbonnier_eps**2).sqrt()

    def _aux_distance(self, aux, hr):
        return (aux - shrink(hr, self.scale)).abs().sum()


def shrink(images, scale):
    """images: [B, C, H, W] -> [B, C, H / scale, W / scale], bicubic with antialiasing, not clamped.

    The kernel is MATLAB's; borders differ by a grey level or two, since weights beyond the image
    are left out instead of mirrored.
    """
    size = [side // scale for side in images.shape[-2:]]
    return F.interpolate(images, size=size, mode="bicubic", antialias=True, align_corners=False)


def high_frequencies(difference):
    """difference: of two images, [B, C, H, W] -> what a 5x5 Gaussian of sigma 1 takes away from it, the same shape.

    The filter is linear: this is the difference of what it takes away from each. Outside of the
    image nothing differs.
    """
    channels = difference.shape[1]
    places = torch.arange(-RADIUS, RADIUS + 1, dtype=torch.float32, device=difference.device)
    kernel = torch.exp(-places.square() / (2 * SIGMA**2))
    kernel = (kernel / kernel.sum()).expand(channels, 1, -1)  # [C, 1, 5]
    smooth = F.conv2d(difference, kernel[..., None], padding=(RADIUS, 0), groups=channels)
    smooth = F.conv2d(smooth, kernel[:, :, None], padding=(0, RADIUS), groups=channels)
    return difference - smooth
