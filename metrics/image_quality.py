"""PSNR and SSIM of one image as in the super-resolution literature, in float64, on any device.

Y is 16 + (65.481 R + 128.553 G + 24.966 B) / 255 of ITU-R BT.601, in 16..235 and not rounded,
although the peak stays 255; a border of `scale` pixels is cut off first, and the scores of a
dataset are means over its images. Training logs of other projects often show RGB, which is 1.5 to 3
dB lower: a score without channel and border cannot be compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

LUMA_WEIGHTS, LUMA_OFFSET = (65.481, 128.553, 24.966), 16  # of R, G, B in units of 1/255
PEAK = 255
SIGMA, WINDOW = 1.5, 11
FAST_FLOAT64 = {(6, 0), (7, 0), (8, 0), (9, 0), (10, 0)}  # P100, V100, A100, H100, B200
STABILIZERS = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2  # C1 and C2
# The part of an image that is processed at a time. On a CPU it stays in a core's cache: SSIM on Y
# of 512 x 512 RGB pixels takes 9.5 ms then, 11.8 with tiles half or twice as large, and
# scikit-image's 42 to 47 ms (one core). On a GPU the tile's tensors take 0.5 GiB.
CPU_TILE_HW, GPU_TILE_HW = (64, 256), (1024, 2048)

Image: TypeAlias = NDArray[np.uint8] | torch.Tensor


def psnr(prediction: Image, target: Image, *, border: int = 0, channel: str = "y") -> float:
    """Compute the peak signal-to-noise ratio in dB, 10 log10(255^2 / mean squared error).

    Args:
        prediction, target: uint8 [H, W, 3], or [H, W] taken as Y without conversion, numpy or torch
            on any device.
        border: pixels cut off each side.
        channel: "y", or "rgb" for one mean over the three channels.

    Returns:
        The ratio; inf for equal images.

    Raises:
        ValueError: for other dtypes and shapes, for two different shapes, and where the border
            leaves nothing.
    """
    return psnr_of(float(mean_squared_error(prediction, target, border=border, channel=channel)))


def psnr_of(mean_squared_error: float) -> float:
    """Return the peak signal-to-noise ratio in dB; inf for no error."""
    return 10 * math.log10(PEAK**2 / mean_squared_error) if mean_squared_error else math.inf


def mean_squared_error(
    prediction: Image, target: Image, *, border: int, channel: str
) -> torch.Tensor:
    """Compute the mean squared error in 0..255^2, float64 [] where it was computed; see `psnr`."""
    x, y = cropped_pair(prediction, target, border, channel)
    squares = torch.zeros((), dtype=torch.float64, device=x.device)
    for to_plane in TO_PLANES[channel]:
        for tile in tiles(x):
            squares += (to_plane(x[tile]) - to_plane(y[tile])).square_().sum()
    return squares / (len(TO_PLANES[channel]) * x.shape[0] * x.shape[1])


def ssim(prediction: Image, target: Image, *, border: int = 0, channel: str = "y") -> float:
    """Compute the mean structural similarity, at most 1 (Wang et al. 2004).

    The mean is over all positions of the window inside the image.

    Window: 11 x 11 Gaussian of sigma 1.5; population covariance; C1 = (0.01 * 255)^2, C2 = (0.03 *
    255)^2. Equal to scikit-image's structural_similarity(a, b, data_range=255,
    gaussian_weights=True, sigma=1.5, use_sample_covariance=False). Arguments and errors as for
    `psnr`; "rgb" is the mean over channels. Raises ValueError also when a side is below 11 pixels
    without the border.
    """
    return float(mean_ssim(prediction, target, border=border, channel=channel))


def mean_ssim(prediction: Image, target: Image, *, border: int, channel: str) -> torch.Tensor:
    """Compute `ssim`, float64 [] where it was computed."""
    x, y = cropped_pair(prediction, target, border, channel, smallest=WINDOW)
    total = torch.zeros((), dtype=torch.float64, device=x.device)
    for to_plane in TO_PLANES[channel]:
        for tile in tiles(x, overlap=WINDOW - 1):
            total += ssim_map(to_plane(x[tile]), to_plane(y[tile])).sum()
    rows, columns = (side - WINDOW + 1 for side in x.shape[:2])
    return total / (len(TO_PLANES[channel]) * rows * columns)


def to_luma(image: torch.Tensor) -> torch.Tensor:
    """Convert uint8 [H, W, 3] to Y, float64 [H, W]; [H, W] is taken as Y without conversion."""
    if image.ndim == 2:
        return image.double()
    luma = image[..., 0].double().mul_(LUMA_WEIGHTS[0])
    for channel in (1, 2):
        luma.add_(image[..., channel].double(), alpha=LUMA_WEIGHTS[channel])
    return luma.div_(255).add_(LUMA_OFFSET)


def to_channel(image: torch.Tensor, channel: int) -> torch.Tensor:
    """Return one channel of uint8 [H, W, 3] as float64 [H, W]."""
    return image[..., channel].double()


TO_PLANES: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], ...]] = {
    "y": (to_luma,),
    "rgb": tuple(partial(to_channel, channel=channel) for channel in range(3)),
}


def cropped_pair(
    prediction: Image, target: Image, border: int, channel: str, smallest: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return both images without the border, uint8 tensors on the prediction's device.

    Args:
        prediction, target, border, channel: see `psnr`.
        smallest: the fewest pixels of a side without the border.

    Raises:
        ValueError: see `psnr`.
    """
    prediction, target = to_tensor(prediction, "prediction"), to_tensor(target, "target")
    if prediction.shape != target.shape:
        raise ValueError(
            f"prediction and target differ in shape: {tuple(prediction.shape)} and "
            f"{tuple(target.shape)}"
        )
    if channel not in TO_PLANES:
        raise ValueError(f"channel: expected one of {', '.join(TO_PLANES)}, got {channel!r}")
    if channel == "rgb" and prediction.ndim == 2:
        raise ValueError(f'channel="rgb": expected images [H, W, 3], got {tuple(prediction.shape)}')
    height, width = prediction.shape[:2]
    if border < 0 or min(height, width) - 2 * border < smallest:
        raise ValueError(
            f"border {border}: leaves less than {smallest} x {smallest} of {height} x {width} "
            "pixels"
        )
    inside = slice(border, height - border), slice(border, width - border)
    return prediction[inside], target.to(prediction.device)[inside]


def to_tensor(image: Image, name: str) -> torch.Tensor:
    """Return an image as uint8 tensor [H, W] or [H, W, 3], sharing its memory where possible.

    Args:
        image: numpy array or tensor.
        name: of the argument, for messages.

    Raises:
        ValueError: for anything else.
    """
    if isinstance(image, np.ndarray) and image.dtype == np.uint8:
        # read-only memory and negative strides are copied
        image = torch.from_numpy(np.require(image, requirements=["C", "W"]))
    if not isinstance(image, torch.Tensor) or image.dtype != torch.uint8:
        actual = image.dtype if hasattr(image, "dtype") else type(image).__name__
        raise ValueError(
            f"{name}: expected uint8 pixels in a numpy array or torch tensor, got {actual}"
        )
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise ValueError(f"{name}: expected [H, W, 3] or [H, W], got {tuple(image.shape)}")
    return image if has_fast_float64(image.device) else image.cpu()


def has_fast_float64(device: torch.device) -> bool:
    """Return False where PSNR and SSIM are computed on the host: on Metal and on most GPUs.

    Metal has no float64. CUDA computes it at 1/2 of the speed of float32 in the chips for data
    centers alone, whose compute capabilities these are, and elsewhere at 1/32 or 1/64 (CUDA C++
    Programming Guide, throughput of arithmetic instructions).
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) in FAST_FLOAT64
    return device.type != "mps"


def tiles(
    image: torch.Tensor, overlap: int = 0
) -> Iterator[tuple[slice[int, int, None], slice[int, int, None]]]:
    """Yield (rows, columns) of tiles that cover [H, W, ...] and share `overlap` pixels."""
    height, width = CPU_TILE_HW if image.device.type == "cpu" else GPU_TILE_HW
    for top in range(0, image.shape[0] - overlap, height):
        for left in range(0, image.shape[1] - overlap, width):
            yield slice(top, top + height + overlap), slice(left, left + width + overlap)


def ssim_map(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Compute SSIM at each position of the window, float64 [H - 10, W - 10].

    (2 mx my + c1) (2 cov + c2) / ((mx^2 + my^2 + c1) (vx + vy + c2)): of the two variances only the
    sum is needed, so that four images are filtered and not five. Working in place saves a fifth of
    the whole time.

    Args:
        x, y: float64 [H, W].
    """
    mean_x, mean_y, mean_squares, mean_product = blur(
        blur(torch.stack([x, y, x * x + y * y, x * y]), 1), 2
    )
    of_means, squared_means = mean_x * mean_y, (mean_x * mean_x).addcmul_(mean_y, mean_y)
    covariance, variances = mean_product.sub_(of_means), mean_squares.sub_(squared_means)
    c1, c2 = STABILIZERS
    similarity = of_means.mul_(2).add_(c1).mul_(covariance.mul_(2).add_(c2))
    return similarity.div_(squared_means.add_(c1).mul_(variances.add_(c2)))


def blur(planes: torch.Tensor, dim: int) -> torch.Tensor:
    """Apply the Gaussian window along one dimension of length L, without padding: L - 10.

    Args:
        planes: float64 tensor.
        dim: the dimension.
    """
    length = planes.shape[dim] - WINDOW + 1
    blurred = planes.narrow(dim, 0, length) * GAUSSIAN[0]
    for offset in range(1, WINDOW):
        # one pass over memory each
        blurred.add_(planes.narrow(dim, offset, length), alpha=GAUSSIAN[offset])
    return blurred


def gaussian_window() -> list[float]:
    """Return the 11 weights of the Gaussian window, of sum 1."""
    weights = [
        math.exp(-((offset - WINDOW // 2) ** 2) / (2 * SIGMA**2)) for offset in range(WINDOW)
    ]
    return [weight / math.fsum(weights) for weight in weights]


GAUSSIAN = gaussian_window()
