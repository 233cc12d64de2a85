"""Augmentation and resizing of images uint8 [3, H, W] with boxes; scaling happens on the device.

Zoom-out, crop and flip are drawn as geometry: a window in whole pixels of the image, which may
reach beyond it. Then the part of the image in the window is resized directly to its place in the
result, so the large canvas never exists. A 640 x 480 JPEG at 256 px takes 2.3 ms of one core (torch
2.14.1, one thread, mean over 205 images), 0.8 of them for decoding, and 30 ms with torchvision's
own transforms.

Random numbers come from `random` and, for the crop, from torch's default generator: both must be
seeded before a sample.
"""

import random
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.transforms.v2 import functional as F

from visionloop.datasets.detection.photometric import Distortion
from visionloop.datasets.io.reduced_jpeg import resized_part

ZOOM_SIDES = (1.0, 4.0)  # of the canvas, in sides of the image
CROP_SCALES = (0.3, 1.0)  # of either side of the crop, in sides of what is cropped
CROP_ASPECTS = (0.5, 2.0)  # of the crop, width over height
CROP_TRIALS = 40
# smallest IoU of the crop with one of its boxes; 1: no crop
MIN_OVERLAPS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)

# (left, top, right, bottom) in pixels of the full image, which it may exceed
Window: TypeAlias = tuple[int, int, int, int]
Boxes: TypeAlias = NDArray[np.float64]
# (pixels uint8 [3, S, S], boxes float32 [K, 4] cxcywh in 0..1, int64 [K] rows of the boxes left)
Transformed: TypeAlias = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class DetectionTrainPreset:
    """The recipe of RT-DETR and D-FINE: photometric distortion, zoom-out, IoU crop, flip, resize.

    `strong = False` leaves flip and resize only, as the recipe does in its last epochs.

    Distortions are drawn first, as in the recipe, and applied last but for the flip: on the pixels
    of the result they cost a fifth, and as they act pixel by pixel they nearly commute with the
    resize (contrast is relative to the mean of the visible part).
    """

    def __init__(
        self,
        size: int,
        *,
        photometric: float = 0.5,
        zoom_out: float = 0.5,
        iou_crop: float = 0.8,
        flip: float = 0.5,
        min_size: float = 1.0,
    ) -> None:
        """Make a transform.

        Args:
            size: side of the result in pixels; the image is squashed to a square.
            photometric: probability of each photometric distortion.
            zoom_out: probability that the image is placed on a black canvas of up to 4 times its
                sides.
            iou_crop: probability of a crop as in SSD.
            flip: probability of a horizontal flip.
            min_size: boxes narrower or lower than this many pixels, before or after the resize, are
                dropped.
        """
        self.size, self.photometric, self.min_size = size, photometric, min_size
        self.zoom_out, self.iou_crop, self.flip = zoom_out, iou_crop, flip
        self.strong = True

    @property
    def min_side(self) -> int:
        """Shorter side of an image whose smallest crop has as many pixels as the result."""
        return int(self.size / CROP_SCALES[0]) if self.iou_crop else self.size

    def __call__(
        self, image: torch.Tensor, boxes: torch.Tensor, full_hw: torch.Tensor | None = None
    ) -> Transformed:
        """Transform an image and its boxes.

        Args:
            image: uint8 [3, H, W].
            boxes: [G, 4] xyxy in pixels, inside the image.
            full_hw: of a reduced image, the (height, width) of the full one, in whose pixels the
                boxes are.
        """
        boxes_xyxy = boxes.numpy().astype(np.float64)
        image_hw = image_size(image, full_hw)
        window, keep, distortion = full_window(image_hw), np.arange(len(boxes_xyxy)), None
        if self.strong:
            distortion = Distortion.draw(self.photometric)
            if random.random() < self.zoom_out:
                window = zoom_out_window(window)
            if random.random() < self.iou_crop:
                window, keep = iou_crop(window, boxes_xyxy)
        mirrored = random.random() < self.flip
        placement = WindowPlacement.of(window, image_hw, self.size, mirrored)
        pixels = placement.pixels(image, image_hw if full_hw is not None else None, distortion)
        return pixels, *placement.boxes(boxes_xyxy, keep, self.min_size)


class DetectionEvalPreset:
    """Squash the whole image to a square and keep all boxes."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, image: torch.Tensor, boxes: torch.Tensor) -> Transformed:
        """Transform an image, uint8 [3, H, W], and its boxes, [G, 4] xyxy in pixels inside it."""
        image_hw = image_size(image)
        placement = WindowPlacement.of(full_window(image_hw), image_hw, self.size)
        boxes_xyxy = boxes.numpy().astype(np.float64)
        return placement.pixels(image), *placement.boxes(boxes_xyxy, np.arange(len(boxes)))


@dataclass(frozen=True)
class WindowPlacement:
    """The part of an image that a window shows, and its place in the square result.

    The part lands on whole pixels of the result and the boxes go with it, so that both always
    agree; beyond the image the result is black.

    Attributes:
        left, top, right, bottom: the part, in pixels of the full image.
        first_x, first_y, last_x, last_y: its place in the result, the last excluded.
        size: side of the result.
        mirrored: whether the result is flipped horizontally.
    """

    left: int
    top: int
    right: int
    bottom: int
    first_x: int
    first_y: int
    last_x: int
    last_y: int
    size: int
    mirrored: bool

    @classmethod
    def of(
        cls, window: Window, image_hw: tuple[int, int], size: int, mirrored: bool = False
    ) -> "WindowPlacement":
        """Return the placement of a window on a full image of this (height, width)."""
        left, top = max(window[0], 0), max(window[1], 0)
        right, bottom = min(window[2], image_hw[1]), min(window[3], image_hw[0])
        first_x, last_x = pixel_span(left, right, window[0], window[2], size)
        first_y, last_y = pixel_span(top, bottom, window[1], window[3], size)
        return cls(left, top, right, bottom, first_x, first_y, last_x, last_y, size, mirrored)

    def pixels(
        self,
        image: torch.Tensor,
        full_hw: tuple[int, int] | None = None,
        distortion: Distortion | None = None,
    ) -> torch.Tensor:
        """Render the result, uint8 [3, size, size].

        Args:
            image: uint8 [3, H, W].
            full_hw: of a reduced image, the (height, width) of the full one.
            distortion: of the colors; pixels outside of the image stay black.
        """
        height, width = self.last_y - self.first_y, self.last_x - self.first_x
        if full_hw is None:
            # cut out as a view; contiguous in the end, because a batch of images with the decoder's
            # strides is stacked 15 times slower
            part = image[:, self.top : self.bottom, self.left : self.right]
            pixels = resize(part, height, width).contiguous()
        else:
            box = self.top, self.left, self.bottom - self.top, self.right - self.left
            pixels = resized_part(image, full_hw, box, height, width)
        if distortion:
            pixels = distortion(pixels)
        if pixels.shape[-2:] != (self.size, self.size):
            canvas = torch.zeros((3, self.size, self.size), dtype=torch.uint8)
            canvas[:, self.first_y : self.last_y, self.first_x : self.last_x] = pixels
            pixels = canvas
        return pixels.flip(-1) if self.mirrored else pixels

    def boxes(
        self, boxes_xyxy: Boxes, keep: NDArray[np.int64], min_size: float = 0.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (boxes float32 [K, 4] cxcywh in 0..1 of the result, int64 [K] their rows).

        Args:
            boxes_xyxy: float64 [G, 4] in pixels of the full image.
            keep: int64, rows of the boxes to use.
            min_size: smallest width and height in pixels, before and after the resize.
        """
        corner = [self.left, self.top, self.left, self.top]
        opposite = [self.right, self.bottom, self.right, self.bottom]
        boxes = np.minimum(np.maximum(boxes_xyxy[keep], corner), opposite)
        keep, boxes = drop_small_boxes(keep, boxes, min_size)
        width, height = self.last_x - self.first_x, self.last_y - self.first_y
        factors = np.array(
            [width / (self.right - self.left), height / (self.bottom - self.top)] * 2
        )
        origin = [self.first_x, self.first_y, self.first_x, self.first_y]
        boxes = (boxes - corner) * factors + origin
        keep, boxes = drop_small_boxes(keep, boxes, min_size)
        if self.mirrored:
            left, right = self.size - boxes[:, 2], self.size - boxes[:, 0]
            boxes = np.stack([left, boxes[:, 1], right, boxes[:, 3]], axis=1)
        boxes_cxcywh = np.concatenate(
            [boxes[:, :2] + boxes[:, 2:], 2 * (boxes[:, 2:] - boxes[:, :2])], axis=1
        ) / (2 * self.size)
        return torch.from_numpy(boxes_cxcywh.astype(np.float32)), torch.from_numpy(keep)


def image_size(image: torch.Tensor, full_hw: torch.Tensor | None = None) -> tuple[int, int]:
    """Return (height, width) of an image, or of the full one if it is reduced."""
    height, width = image.shape[-2:] if full_hw is None else map(int, full_hw)
    return height, width


def full_window(image_hw: tuple[int, int]) -> Window:
    """Return the window that shows a whole image."""
    return 0, 0, image_hw[1], image_hw[0]


def zoom_out_window(window: Window) -> Window:
    """Draw a larger window, up to 4 times the sides, that shows all of this one."""
    left, top, right, bottom = window
    side = random.uniform(*ZOOM_SIDES)
    width, height = int((right - left) * side), int((bottom - top) * side)
    left -= int((width - (right - left)) * random.random())
    top -= int((height - (bottom - top)) * random.random())
    return left, top, left + width, top + height


def iou_crop(window: Window, boxes_xyxy: Boxes) -> tuple[Window, NDArray[np.int64]]:
    """Draw a smaller window as torchvision's RandomIoUCrop does.

    One box at least has the drawn overlap with the crop. At times, and always without boxes, the
    window is not changed.

    Returns:
        (window, int64 rows of the boxes whose center it shows).
    """
    while len(boxes_xyxy):
        min_overlap = random.choice(MIN_OVERLAPS)
        if min_overlap >= 1:
            break
        crops = random_crops(window)
        starts, stops = crops[:, None, :2], crops[:, None, 2:]
        box_starts, box_stops = boxes_xyxy[:, :2], boxes_xyxy[:, 2:]
        centers = (box_starts + box_stops) / 2
        visible = np.all((starts < centers) & (centers < stops), axis=-1)  # [crops, boxes]
        sides = np.minimum(stops, box_stops) - np.maximum(starts, box_starts)
        common = sides.clip(0).prod(-1)
        union = (stops - starts).prod(-1) + (box_stops - box_starts).prod(-1) - common
        fits = (visible & (common >= min_overlap * union)).any(1)
        if fits.any():
            chosen = fits.argmax()
            left, top, right, bottom = crops[chosen].astype(int).tolist()
            return (left, top, right, bottom), visible[chosen].nonzero()[0]
    return window, np.arange(len(boxes_xyxy))


def random_crops(window: Window) -> Boxes:
    """Draw crops of a window: of 40 those with a valid aspect ratio, whole numbers [N, 4] xyxy."""
    origin = np.array(window[:2])
    sides = np.array(window[2:]) - origin
    chance = torch.rand((CROP_TRIALS, 4), dtype=torch.float64).numpy()
    crop_sides = np.maximum(
        1, np.floor(sides * (CROP_SCALES[0] + (CROP_SCALES[1] - CROP_SCALES[0]) * chance[:, :2]))
    )
    starts = origin + np.floor((sides - crop_sides) * chance[:, 2:])
    aspects = crop_sides[:, 0] / crop_sides[:, 1]
    valid = (CROP_ASPECTS[0] <= aspects) & (aspects <= CROP_ASPECTS[1])
    return np.concatenate([starts, starts + crop_sides], axis=1)[valid]


def resize(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Resize uint8 [3, H, W] bilinearly with antialiasing."""
    if width > 1:
        return F.resize_image(image, [height, width], antialias=True)
    # for one column torch's kernel for bytes gives wrong pixels or fails (2.14.1), that for floats
    # does not
    return F.resize_image(image.float(), [height, width], antialias=True).round().to(torch.uint8)


def pixel_span(
    start: int, stop: int, window_start: int, window_stop: int, size: int
) -> tuple[int, int]:
    """Return the whole pixels of the result that a part of a window fills along one side.

    Args:
        start, stop: of the part.
        window_start, window_stop: of the window.
        size: side of the result.

    Returns:
        (first, last), the last excluded; one pixel at least.
    """
    factor = size / (window_stop - window_start)
    first = min(round((start - window_start) * factor), size - 1)
    return first, max(first + 1, round((stop - window_start) * factor))


def drop_small_boxes(
    keep: NDArray[np.int64], boxes_xyxy: Boxes, min_size: float
) -> tuple[NDArray[np.int64], Boxes]:
    """Return (keep, boxes) of the boxes that are at least `min_size` wide and high."""
    large = np.all(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2] >= min_size, axis=1)
    return keep[large], boxes_xyxy[large]
