"""PSNR and SSIM of one image as the super-resolution literature measures them, in float64, wherever the pixels lie.

Y is 16 + (65.481 R + 128.553 G + 24.966 B) / 255 of ITU-R BT.601, in 16..235 and not rounded,
although the peak stays 255; a border of `scale` pixels is cut off first, and the scores of a data
set are means over its images. Training logs of other projects often show RGB, which is 1.5 to 3
dB lower: a score without channel and border cannot be compared.
"""

import math
from functools import partial

import numpy as np
import torch

LUMA_WEIGHTS, LUMA_OFFSET = (65.481, 128.553, 24.966), 16  # of R, G, B in units of 1/255
PEAK = 255
SIGMA, WINDOW = 1.5, 11
STABILIZERS = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2  # C1 and C2
# What is worked on at a time. On a CPU it stays in a core's cache: SSIM on Y of 512 x 512 RGB
# pixels takes 9.5 ms so, 11.8 with tiles half as large or twice, and scikit-image's 42 to 47 ms
# (one core). A GPU takes what 0.5 GiB holds.
CPU_TILE_HW, GPU_TILE_HW = (64, 256), (1024, 2048)


def psnr(prediction, target, *, border=0, channel="y"):
    """Peak signal-to-noise ratio in dB, 10 log10(255^2 / mean squared difference); inf for equal images.

    prediction, target: uint8 [H, W, 3], or [H, W] taken as Y as it stands, numpy or torch on any
    device. border: pixels cut off each side. channel: "y", or "rgb" for one mean over the three
    channels. Raises ValueError for other dtypes and shapes, for two shapes, and where the border
    leaves nothing.
    """
    x, y = cropped_pair(prediction, target, border, channel)
    squares = torch.zeros((), dtype=torch.float64, device=x.device)
    for to_plane in TO_PLANES[channel]:
        for tile in tiles(x):
            squares += (to_plane(x[tile]) - to_plane(y[tile])).square_().sum()
    mean = float(squares) / (len(TO_PLANES[channel]) * x.shape[0] * x.shape[1])
    return 10 * math.log10(PEAK**2 / mean) if mean else math.inf


def ssim(prediction, target, *, border=0, channel="y"):
    """Mean structural similarity, at most 1, over all positions of the window inside the image (Wang et al. 2004).

    Window: 11 x 11 Gaussian of sigma 1.5; population covariance; C1 = (0.01 * 255)^2, C2 = (0.03 *
    255)^2. Equal to scikit-image's structural_similarity(a, b, data_range=255,
    gaussian_weights=True, sigma=1.5, use_sample_covariance=False). Arguments and errors as of
    `psnr`; "rgb" is the mean over channels. Raises ValueError too when a side is below 11 pixels
    without the border.
    """
    x, y = cropped_pair(prediction, target, border, channel, smallest=WINDOW)
    total = torch.zeros((), dtype=torch.float64, device=x.device)
    for to_plane in TO_PLANES[channel]:
        for tile in tiles(x, overlap=WINDOW - 1):
            total += ssim_map(to_plane(x[tile]), to_plane(y[tile])).sum()
    rows, columns = (side - WINDOW + 1 for side in x.shape[:2])
    return float(total) / (len(TO_PLANES[channel]) * rows * columns)


def to_luma(image):
    """float64 [H, W] of a uint8 tensor: Y of [H, W, 3], and [H, W] as it stands."""
    if image.ndim == 2:
        return image.double()
    luma = image[..., 0].double().mul_(LUMA_WEIGHTS[0])
    for channel in (1, 2):
        luma.add_(image[..., channel].double(), alpha=LUMA_WEIGHTS[channel])
    return luma.div_(255).add_(LUMA_OFFSET)


def to_channel(image, channel):
    """float64 [H, W] of a uint8 tensor [H, W, 3]."""
    return image[..., channel].double()


TO_PLANES = {
    "y": (to_luma,),
    "rgb": tuple(partial(to_channel, channel=channel) for channel in range(3)),
}


def cropped_pair(prediction, target, border, channel, smallest=1):
    """Two uint8 tensors of one shape without the border, on the prediction's device.

    smallest: what a side must hold then. Raises ValueError as `psnr` says.
    """
    prediction, target = to_tensor(prediction, "prediction"), to_tensor(target, "target")
    if prediction.shape != target.shape:
        raise ValueError(
            f"prediction and target differ in shape: {tuple(prediction.shape)} and {tuple(target.shape)}"
        )
    if channel not in TO_PLANES:
        raise ValueError(f"channel: expected one of {', '.join(TO_PLANES)}, got {channel!r}")
    if channel == "rgb" and prediction.ndim == 2:
        raise ValueError(f'channel="rgb": expected images [H, W, 3], got {tuple(prediction.shape)}')
    height, width = prediction.shape[:2]
    if border < 0 or min(height, width) - 2 * border < smallest:
        raise ValueError(
            f"border {border}: leaves less than {smallest} x {smallest} of {height} x {width} pixels"
        )
    inside = slice(border, height - border), slice(border, width - border)
    return prediction[inside], target.to(prediction.device)[inside]


def to_tensor(image, name):
    """A uint8 tensor [H, W] or [H, W, 3] on the memory of the image where that is possible; ValueError names what is wrong."""
    if isinstance(image, np.ndarray) and image.dtype == np.uint8:
        image = torch.from_numpy(
            np.require(image, requirements=["C", "W"])
        )  # read-only memory and negative strides are copied
    if not isinstance(image, torch.Tensor) or image.dtype != torch.uint8:
        what = getattr(image, "dtype", type(image).__name__)
        raise ValueError(
            f"{name}: expected uint8 pixels in a numpy array or torch tensor, got {what}"
        )
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise ValueError(f"{name}: expected [H, W, 3] or [H, W], got {tuple(image.shape)}")
    return image.cpu() if image.device.type == "mps" else image  # which has no float64


def tiles(image, overlap=0):
    """Matches of slices that cover [H, W, ...]; each starts where the one before ends, less the overlap."""
    height, width = CPU_TILE_HW if image.device.type == "cpu" else GPU_TILE_HW
    for top in range(0, image.shape[0] - overlap, height):
        for left in range(0, image.shape[1] - overlap, width):
            yield slice(top, top + height + overlap), slice(left, left + width + overlap)


def ssim_map(x, y):
    """float64 [H - 10, W - 10]: SSIM at each position of the window. x, y: float64 [H, W].

    (2 mx my + c1) (2 cov + c2) / ((mx^2 + my^2 + c1) (vx + vy + c2)): of the two variances only the
    sum is needed, so that four images are filtered and not five. In place, which takes a fifth
    off the whole.
    """
    mean_x, mean_y, mean_squares, mean_product = blur(
        blur(torch.stack([x, y, x * x + y * y, x * y]), 1), 2
    )
    of_means, squared_means = mean_x * mean_y, (mean_x * mean_x).addcmul_(mean_y, mean_y)
    covariance, variances = mean_product.sub_(of_means), mean_squares.sub_(squared_means)
    c1, c2 = STABILIZERS
    similarity = of_means.mul_(2).add_(c1).mul_(covariance.mul_(2).add_(c2))
    return similarity.div_(squared_means.add_(c1).mul_(variances.add_(c2)))


def blur(planes, dim):
    """Gaussian window along one dimension, at the positions where it lies inside: L -> L - 10. planes: float64 tensor."""
    length = planes.shape[dim] - WINDOW + 1
    blurred = planes.narrow(dim, 0, length) * GAUSSIAN[0]
    for offset in range(1, WINDOW):
        blurred.add_(
            planes.narrow(dim, offset, length), alpha=GAUSSIAN[offset]
        )  # one pass over memory each
    return blurred


def gaussian_window():
    """[float] * 11 of sum 1."""
    weights = [
        math.exp(-((offset - WINDOW // 2) ** 2) / (2 * SIGMA**2)) for offset in range(WINDOW)
    ]
    return [weight / math.fsum(weights) for weight in weights]


GAUSSIAN = gaussian_window()
