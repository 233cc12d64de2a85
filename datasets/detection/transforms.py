"""Augmentation and resizing of uint8 images [3, H, W] with their boxes; pixels stay bytes, scaling happens on the device.

Zooming out, cropping and mirroring are drawn as geometry: a window in whole pixels of the image,
which may reach beyond it. Then the part of the image that the window shows is resized straight to
its place in the result, so the large canvas never exists. A 640 x 480 JPEG at 256 px takes 2.3 ms
of one core (torch 2.14.1, one thread, mean over 205 images), 0.8 of them for decoding, and 30 ms
with torchvision's own transforms.

Chance comes from `random` and, for the crop, from torch's default generator: both must be seeded
before a sample.
"""

import random

import numpy as np
import torch
from torchvision.transforms.v2 import functional as F

from visionloop.datasets.detection.photometric import Distortion
from visionloop.datasets.io.reduced_jpeg import resized_part

ZOOM_SIDES = (1.0, 4.0)  # of the canvas, in sides of the image
CROP_SCALES = (0.3, 1.0)  # of either side of the crop, in sides of what is cropped
CROP_ASPECTS = (0.5, 2.0)  # of the crop, width over height
CROP_TRIALS = 40
LEAST_OVERLAPS = (
    0.0,
    0.1,
    0.3,
    0.5,
    0.7,
    0.9,
    1.0,
)  # IoU of the crop with a box that it must show; 1 stands for no crop


class DetectionTrainPreset:
    """The recipe of RT-DETR and D-FINE: random colours, zooming out, IoU crop, mirror, squash to a square.

    size: side of the result; photometric: probability of each change of colour; zoom_out:
    probability that the image lies on a black canvas of up to 4 times its sides; iou_crop:
    probability of a crop as in SSD; flip: of a left-right mirror; min_size: boxes narrower or lower
    than this many pixels, before or after the resize, are dropped. `strong = False` leaves flip and
    resize alone, as the last epochs of the recipe want it.

    Colours are drawn first, as in the recipe, and changed last but for the mirror: on the pixels of
    the result they cost a fifth, and as they act pixel by pixel they nearly commute with the resize
    (contrast is relative to the mean of the part that is seen).
    """

    def __init__(
        self, size, *, photometric=0.5, zoom_out=0.5, iou_crop=0.8, flip=0.5, min_size=1.0
    ):
        self.size, self.photometric, self.zoom_out, self.iou_crop, self.flip = (
            size,
            photometric,
            zoom_out,
            iou_crop,
            flip,
        )
        self.min_size, self.strong = min_size, True

    @property
    def least_side(self):
        """Of an image's shorter side, so that the smallest crop has as many pixels as the result."""
        return int(self.size / CROP_SCALES[0]) if self.iou_crop else self.size

    def __call__(self, image, boxes, whole_hw=None):
        """image: uint8 [3, H, W], boxes: [G, 4] xyxy in pixels, inside the image -> see place."""
        boxes_xyxy = boxes.numpy().astype(np.float64)
        window, keep, distortion = whole(image, whole_hw), np.arange(len(boxes_xyxy)), None
        if self.strong:
            distortion = Distortion.draw(self.photometric)
            if random.random() < self.zoom_out:
                window = zoomed_out(window)
            if random.random() < self.iou_crop:
                window, keep = iou_crop(window, boxes_xyxy)
        mirrored = random.random() < self.flip
        placing = {"mirrored": mirrored, "distortion": distortion, "whole_hw": whole_hw}
        return place(image, boxes_xyxy, keep, window, self.size, self.min_size, **placing)


class DetectionEvalPreset:
    """The whole image squashed to a square, all boxes kept."""

    def __init__(self, size):
        self.size = size

    def __call__(self, image, boxes):
        """image: uint8 [3, H, W], boxes: [G, 4] xyxy in pixels, inside the image -> see place."""
        return place(
            image,
            boxes.numpy().astype(np.float64),
            np.arange(len(boxes)),
            whole(image),
            self.size,
        )


def whole(image, whole_hw=None):
    """The window that shows an image as it is: (left, top, right, bottom) in its pixels, or in those of the one it was scaled from."""
    height, width = image.shape[-2:] if whole_hw is None else map(int, whole_hw)
    return 0, 0, width, height


def zoomed_out(window):
    """A random larger window, up to 4 times the sides, that shows all of this one."""
    left, top, right, bottom = window
    side = random.uniform(*ZOOM_SIDES)
    width, height = int((right - left) * side), int((bottom - top) * side)
    left -= int((width - (right - left)) * random.random())
    top -= int((height - (bottom - top)) * random.random())
    return left, top, left + width, top + height


def iou_crop(window, boxes_xyxy):
    """(random smaller window, int64 rows of the boxes whose centre it shows); drawn like torchvision's RandomIoUCrop.

    One box at least has the drawn overlap with the crop. At times, and always without boxes, the
    window stays as it is.
    """
    while len(boxes_xyxy):
        least_overlap = random.choice(LEAST_OVERLAPS)
        if least_overlap >= 1:
            break
        crops = random_crops(window)
        starts, stops = crops[:, None, :2], crops[:, None, 2:]
        centres = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2
        shown = ((starts < centres) & (centres < stops)).all(-1)  # [crops, boxes]
        common = (
            (np.minimum(stops, boxes_xyxy[:, 2:]) - np.maximum(starts, boxes_xyxy[:, :2]))
            .clip(0)
            .prod(-1)
        )
        union = (
            (stops - starts).prod(-1) + (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(-1) - common
        )
        fits = (shown & (common >= least_overlap * union)).any(1)
        if fits.any():
            chosen = fits.argmax()
            return tuple(crops[chosen].astype(int).tolist()), shown[chosen].nonzero()[0]
    return window, np.arange(len(boxes_xyxy))


def random_crops(window):
    """Crops of a window, float64 [N, 4] xyxy of whole numbers: of 40 tries those that are not too long."""
    origin = np.array(window[:2])
    sides = np.array(window[2:]) - origin
    chance = torch.rand((CROP_TRIALS, 4), dtype=torch.float64).numpy()
    crop_sides = np.maximum(
        1, np.floor(sides * (CROP_SCALES[0] + (CROP_SCALES[1] - CROP_SCALES[0]) * chance[:, :2]))
    )
    starts = origin + np.floor((sides - crop_sides) * chance[:, 2:])
    aspects = crop_sides[:, 0] / crop_sides[:, 1]
    legal = (CROP_ASPECTS[0] <= aspects) & (aspects <= CROP_ASPECTS[1])
    return np.concatenate([starts, starts + crop_sides], axis=1)[legal]


def place(
    image,
    boxes_xyxy,
    keep,
    window,
    size,
    min_size=0.0,
    *,
    mirrored=False,
    distortion=None,
    whole_hw=None,
):
    """What a window shows, as a square, and the boxes in it.

    boxes_xyxy: float64 [G, 4] in pixels, of which the rows `keep` are wanted. whole_hw: of a scaled
    image (see scaled_images.py) the size of the whole one, in whose pixels boxes and window
    then are. Returns (uint8 [3, size, size], float32 [K, 4] cxcywh in 0..1, int64 [K] rows of the
    boxes that are left). The part of the image that is seen lands on whole pixels of the result
    and the boxes go with it, so that both always agree; beyond the image it is black.
    """
    _, _, width, height = whole(image, whole_hw)
    left, top, right, bottom = (
        max(window[0], 0),
        max(window[1], 0),
        min(window[2], width),
        min(window[3], height),
    )
    first_x, last_x = span(left, right, window[0], window[2], size)
    first_y, last_y = span(top, bottom, window[1], window[3], size)
    shown_height, shown_width = last_y - first_y, last_x - first_x
    if whole_hw is None:
        # cut out as a view; contiguous in the end, because a batch of images with the decoder's
        # strides is stacked 15 times slower
        pixels = resize(image[:, top:bottom, left:right], shown_height, shown_width).contiguous()
    else:
        pixels = resized_part(
            image,
            (height, width),
            (top, left, bottom - top, right - left),
            shown_height,
            shown_width,
        )
    if distortion:
        pixels = distortion(pixels)
    if pixels.shape[-2:] != (size, size):
        canvas = torch.zeros((3, size, size), dtype=torch.uint8)
        canvas[:, first_y:last_y, first_x:last_x] = pixels
        pixels = canvas

    boxes = np.minimum(
        np.maximum(boxes_xyxy[keep], [left, top, left, top]), [right, bottom, right, bottom]
    )
    keep, boxes = large_enough(keep, boxes, min_size)
    factors = np.array([shown_width / (right - left), shown_height / (bottom - top)] * 2)
    boxes = (boxes - [left, top, left, top]) * factors + [first_x, first_y, first_x, first_y]
    keep, boxes = large_enough(keep, boxes, min_size)
    if mirrored:
        pixels, boxes = (
            pixels.flip(-1),
            np.stack([size - boxes[:, 2], boxes[:, 1], size - boxes[:, 0], boxes[:, 3]], axis=1),
        )
    boxes_cxcywh = np.concatenate(
        [boxes[:, :2] + boxes[:, 2:], 2 * (boxes[:, 2:] - boxes[:, :2])], axis=1
    ) / (2 * size)
    return pixels, torch.from_numpy(boxes_cxcywh.astype(np.float32)), torch.from_numpy(keep)


def resize(image, height, width):
    """Bilinear with antialiasing, uint8 to uint8."""
    if width > 1:
        return F.resize_image(image, [height, width], antialias=True)
    # for one column torch's kernel for bytes gives wrong pixels or fails (2.14.1), that for floats
    # does not
    return F.resize_image(image.float(), [height, width], antialias=True).round().to(torch.uint8)


def span(start, stop, window_start, window_stop, size):
    """(first, last) whole pixels, the last excluded, of the result that a part of a window fills along one side; one at least."""
    factor = size / (window_stop - window_start)
    first = min(round((start - window_start) * factor), size - 1)
    return first, max(first + 1, round((stop - window_start) * factor))


def large_enough(keep, boxes_xyxy, min_size):
    """(keep, boxes) of those at least that wide and high."""
    kept = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2] >= min_size).all(axis=1)
    return keep[kept], boxes_xyxy[kept]
