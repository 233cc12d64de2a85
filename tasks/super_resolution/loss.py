"""The losses of Swin2SR: of pixels, of the auxiliary image and of high frequencies.

Sources: models/loss.py of `cszn/KAIR` (Charbonnier) and arXiv:2209.11345, section 3 (the two
others, whose weights its authors did not publish). transformers has no loss for Swin2SR.
"""

from collections.abc import Mapping

import torch
from torch.nn import functional as F

from visionloop.engine.batch import Normalizers

EPS = 1e-9**0.5  # of Charbonnier, for pixels in 0..1: KAIR adds 1e-9 under the root
SIGMA, RADIUS = 1.0, 2  # of the Gaussian in pixels: 5 x 5


class SuperResolutionCriterion:
    """Pixel loss, plus the auxiliary and the frequency term where their weights are above 0.

    Args:
        kind: pixel loss: "l1", or "charbonnier", sqrt(d^2 + eps^2); the other terms are L1.
        charbonnier_eps: eps of Charbonnier.
        aux_weight: weight of the distance between the auxiliary image and the ground truth at the
            input size, which is resized bicubically with antialiasing.
        frequency_weight: weight of the distance between the high frequencies of the two images,
            which are what a 5 x 5 Gaussian removes.
        scale: upscaling factor.
    """

    def __init__(
        self,
        kind: str = "l1",
        *,
        charbonnier_eps: float = EPS,
        aux_weight: float = 0.0,
        frequency_weight: float = 0.0,
        scale: int = 1,
    ) -> None:
        if kind not in ("l1", "charbonnier"):
            raise ValueError(f"loss: expected l1 or charbonnier, got {kind!r}")
        self.kind, self.charbonnier_eps, self.scale = kind, charbonnier_eps, scale
        self.aux_weight, self.frequency_weight = aux_weight, frequency_weight

    def __call__(
        self,
        outputs: Mapping[str, torch.Tensor | None],
        hr: torch.Tensor,
        normalizers: Normalizers | None = None,
    ) -> dict[str, torch.Tensor]:
        """Compute the loss terms in fp32.

        Args:
            outputs: {"sr": [B, 3, H, W], "aux": [B, 3, H / s, W / s] or None}.
            hr: the ground truth, [B, 3, H, W] in 0..1.
            normalizers: {"pixels": B * H * W of the optimizer step / ranks}. A sum over pixels and
                channels is divided by 3 * pixels, the auxiliary one by 3 * pixels / s^2, so that
                micro-batches add up, and ranks average, to the mean over the whole batch. None
                divides by the numbers of this call.

        Returns:
            {"loss", "loss_pixel"} and, where their weights are above 0, "loss_aux" and
            "loss_frequency". The terms are unweighted, "loss" is their weighted sum.
        """
        sr, aux = outputs["sr"], outputs["aux"]
        assert sr is not None, "every network returns an image"
        with torch.autocast(hr.device.type, enabled=False):
            hr = hr.float()
            difference = sr.float() - hr
            numbers = hr.numel() if normalizers is None else 3 * normalizers["pixels"]
            total = pixel = self._distances(difference).sum() / numbers
            terms = {"loss_pixel": pixel}
            if self.aux_weight and aux is not None:
                distance = (aux.float() - downscale(hr, self.scale)).abs().sum()
                terms["loss_aux"] = distance / (numbers / self.scale**2)
                total = total + self.aux_weight * terms["loss_aux"]
            if self.frequency_weight:
                terms["loss_frequency"] = high_frequencies(difference).abs().sum() / numbers
                total = total + self.frequency_weight * terms["loss_frequency"]
            return {"loss": total, **terms}

    def _distances(self, difference: torch.Tensor) -> torch.Tensor:
        if self.kind == "l1":
            return difference.abs()
        return (difference.square() + self.charbonnier_eps**2).sqrt()


def downscale(images: torch.Tensor, scale: int) -> torch.Tensor:
    """Resize [B, C, H, W] to [B, C, H / scale, W / scale], bicubic with antialiasing, not clamped.

    The kernel is MATLAB's. Borders differ by a gray level or two, since weights beyond the image
    are left out instead of mirrored.
    """
    size = [side // scale for side in images.shape[-2:]]
    return F.interpolate(images, size=size, mode="bicubic", antialias=True, align_corners=False)


def high_frequencies(difference: torch.Tensor) -> torch.Tensor:
    """Return what a 5 x 5 Gaussian of sigma 1 removes from the difference of two images.

    The filter is linear, so this is the difference of what it removes from each. Outside of the
    image the difference is 0.

    Args:
        difference: [B, C, H, W].

    Returns:
        The same shape.
    """
    channels = difference.shape[1]
    positions = torch.arange(-RADIUS, RADIUS + 1, dtype=torch.float32, device=difference.device)
    kernel = torch.exp(-positions.square() / (2 * SIGMA**2))
    kernel = (kernel / kernel.sum()).expand(channels, 1, -1)  # [C, 1, 5]
    smooth = F.conv2d(difference, kernel[..., None], padding=(RADIUS, 0), groups=channels)
    smooth = F.conv2d(smooth, kernel[:, :, None], padding=(0, RADIUS), groups=channels)
    return difference - smooth
