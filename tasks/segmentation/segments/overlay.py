"""Segments over an image: the hue of the class, a lightness for each object, outlines and names."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from visionloop.tasks.segmentation.drawing import Pixels
from visionloop.tasks.segmentation.segments.names import write_names
from visionloop.tasks.segmentation.segments.regions import Mask, Region, Segments

# of white (above 0) or black that is mixed into the color of a class
SHADES = (0.0, 0.5, -0.3, 0.25)
APART = 0.02  # of the longer side: closer objects of one class get different shades
STRENGTH = 0.55  # of colors over the image
STRIPE = 4  # pixels, of the stripes in a crowd


def overlay_segments(
    image: Pixels, segments: Segments, classes: Sequence[str], colors: Pixels
) -> Pixels:
    """Draw segments on a copy of an image, the smallest on top, with their names and scores.

    All outlines lie over all areas, so that of two overlapping masks both are seen. The area of a
    crowd has stripes.

    Args:
        image: uint8 [H, W, 3].
        segments: at this size.
        classes: names in order of id.
        colors: uint8 [K, 3].

    Returns:
        uint8 [H, W, 3].
    """
    drawn = image.copy()
    paint = object_colors(segments, colors, max(image.shape))
    largest_first = np.argsort(-segments.areas, kind="stable")
    for i in largest_first:
        region = segments.regions[i]
        mask = region.mask & stripes(region) if segments.crowd[i] else region.mask
        blend(drawn[region.window], mask, paint[i], STRENGTH)
    thickness = 1 if max(image.shape) < 600 else 2
    for i in largest_first:
        region = segments.regions[i]
        drawn[region.window][outline(region, image.shape[:2], thickness)] = paint[i]
    return write_names(drawn, segments, classes, paint)


def blend(pixels: Pixels, mask: Mask, color: NDArray[np.uint8], strength: float) -> None:
    """Mix a color into the pixels of a mask in place; strength 1 leaves the color alone.

    Args:
        pixels: uint8 [h, w, 3].
        mask: bool [h, w].
        color: uint8 [3].
        strength: 0..1.
    """
    mixed = pixels[mask] * (1 - strength) + color * strength
    pixels[mask] = np.rint(mixed).astype(np.uint8)


def outline(region: Region, size_hw: tuple[int, ...], thickness: int) -> Mask:
    """Return the pixels of a mask along its border, bool [h, w]. The image's border is none.

    Args:
        region: the mask.
        size_hw: height and width of the drawing.
        thickness: in pixels.
    """
    height, width = region.mask.shape
    goes_on = (
        (region.top == 0, region.top + height == size_hw[0]),
        (region.left == 0, region.left + width == size_hw[1]),
    )
    padded = np.pad(region.mask, thickness)
    for axis, sides in enumerate(goes_on):
        for at_end, beyond in enumerate(sides):
            if beyond:
                along = padded.swapaxes(0, axis)
                rows = slice(-thickness, None) if at_end else slice(thickness)
                along[rows] = along[-thickness - 1 if at_end else thickness]
    inner = ndimage.binary_erosion(padded, iterations=thickness, border_value=1)
    result: Mask = region.mask & ~inner[thickness:-thickness, thickness:-thickness]
    return result


def stripes(region: Region) -> Mask:
    """Return a pattern of diagonal stripes for a mask, bool [h, w], the same in all regions."""
    rows, columns = np.indices(region.mask.shape)
    pattern: Mask = (rows + region.top + columns + region.left) // STRIPE % 2 == 0
    return pattern


def object_colors(segments: Segments, colors: Pixels, side: int) -> Pixels:
    """Return a color for each segment, uint8 [n, 3].

    It is the color of the class, or a lighter or darker shade of it where a larger object of the
    class is near: each object takes the shade that is farthest away.

    Args:
        segments: n of them.
        colors: uint8 [K, 3].
        side: longer one of the drawing, in pixels.
    """
    boxes, labels = segments.boxes, segments.labels
    centers, chosen = (boxes[:, :2] + boxes[:, 2:]) / 2, np.zeros(len(boxes), dtype=np.int64)
    has_shade = np.zeros(len(boxes), dtype=bool)
    for i in np.argsort(-segments.areas, kind="stable").tolist():
        larger = np.flatnonzero(has_shade & (labels == labels[i]))
        gaps = np.maximum(boxes[larger, :2] - boxes[i, 2:], boxes[i, :2] - boxes[larger, 2:])
        # of boxes that touch, the distance of their centers decides
        center_distances = np.linalg.norm(centers[larger] - centers[i], axis=1)
        distances = gaps.max(axis=1).clip(0) + center_distances / 100
        nearest = [
            distances[chosen[larger] == shade].min(initial=np.inf) for shade in range(len(SHADES))
        ]
        chosen[i] = next(
            (shade for shade, distance in enumerate(nearest) if distance > APART * side),
            int(np.argmax(nearest)),
        )
        has_shade[i] = True
    amounts = np.array(SHADES)[chosen, None]
    plain = colors[segments.labels].astype(np.float64)
    mixed = plain + np.abs(amounts) * (np.where(amounts > 0, 255, 0) - plain)
    return np.rint(mixed).astype(np.uint8)
