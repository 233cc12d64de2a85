"""Samples as a function of the user gets them, and checks of what it returns.

A part is a tv_tensor, a copy that the function may change. It may return tensors or numpy arrays:
images as uint8 [3, H, W], or numpy [H, W, 3]. What the function returns leaves here as plain,
contiguous tensors.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from visionloop.datasets.augmentation.function import Parts, UserFunction

IGNORED = 255  # in a mask of class ids
OUTSIDE = 1.0  # pixels by which rounding may move a corner out of the image


class Result:
    """The result of a function for a sample, part by part. Methods raise AugmentError."""

    def __init__(self, function: UserFunction, parts: Parts, sample: str) -> None:
        self.function, self.sample = function, sample
        self.values: Mapping[str, object] = function(parts, sample)
        self.checked: dict[str, torch.Tensor] = {}

    def refuse(self, name: str, why: str) -> Exception:
        """Return the error of a part."""
        return self.function.error(f"{name}: {why}", self.sample)

    def tensor(self, name: str) -> torch.Tensor:
        """Return a part as a plain tensor: of a tensor, an array, or a list of them."""
        value = self.values[name]
        if isinstance(value, torch.Tensor):
            return value.detach().as_subclass(torch.Tensor)
        try:
            return torch.from_numpy(np.ascontiguousarray(np.asarray(value)))
        except (TypeError, ValueError):
            found = type(value).__name__
            raise self.refuse(name, f"expected a tensor, got {found}") from None

    def keep(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Note a checked part, contiguous."""
        self.checked[name] = tensor.contiguous()
        return self.checked[name]

    def record(self) -> None:
        """Note the digests of all checked parts, while they are recorded."""
        self.function.record(self.checked)

    def image(self, name: str = "image", shape: torch.Size | None = None) -> torch.Tensor:
        """Return an image, uint8 [3, H, W]. shape: the one that it must have."""
        image, value = self.tensor(name), self.values[name]
        if isinstance(value, np.ndarray) and image.ndim == 3 and image.shape[-1] == 3:
            image = image.permute(2, 0, 1)
        is_image = image.ndim == 3 and len(image) == 3 and 0 not in image.shape
        if image.dtype != torch.uint8 or not is_image:
            expected = "uint8 [3, H, W], or numpy uint8 [H, W, 3]"
            raise self.refuse(name, f"expected {expected}, got {describe(image)}")
        if shape is not None and image.shape != shape:
            expected = f"the size that it was given, {list(shape)}"
            raise self.refuse(name, f"expected {expected}, got {list(image.shape)}")
        return self.keep(name, image)

    def ids(self, name: str, limit: int) -> torch.Tensor:
        """Return whole numbers below `limit`, int64 of any shape."""
        numbers = self.tensor(name)
        ids = numbers.to(torch.int64)
        if not torch.equal(ids.to(numbers.dtype), numbers):
            raise self.refuse(name, f"expected whole numbers, got {describe(numbers)}")
        if wrong := ids[(ids < 0) | (ids >= limit)].tolist():
            raise self.refuse(name, f"expected 0 to {limit - 1}, got {wrong[0]}")
        return self.keep(name, ids)

    def rows(self, name: str, other: str, count: int, limit: int) -> torch.Tensor:
        """Return whole numbers below `limit`, int64 [count]. other: the part with as many rows."""
        ids = self.ids(name, limit)
        if ids.shape != (count,):
            raise self.refuse(name, f"{list(ids.shape)}, but there are {count} {other}")
        return ids

    def mask(self, name: str, size_hw: torch.Size) -> torch.Tensor:
        """Return a map of numbers of the size of the image, any dtype [H, W]."""
        mask = self.tensor(name)
        if mask.ndim == 3 and len(mask) == 1:
            mask = mask[0]
        if mask.shape != size_hw:
            expected = f"the size of the image, {list(size_hw)}"
            raise self.refuse(name, f"expected {expected}, got {describe(mask)}")
        return mask

    def boxes(self, size_hw: torch.Size) -> torch.Tensor:
        """Return boxes, float64 [N, 4] xyxy in pixels, clipped to the image by a rounding error."""
        value = self.values["boxes"]
        boxes = self.tensor("boxes")
        if isinstance(value, tv_tensors.BoundingBoxes):
            xyxy = tv_tensors.BoundingBoxFormat.XYXY
            boxes = F.convert_bounding_box_format(boxes, value.format, xyxy)
        boxes = boxes.double() if boxes.numel() else torch.zeros((0, 4), dtype=torch.float64)
        if boxes.ndim != 2 or boxes.shape[1] != 4 or not boxes.isfinite().all():
            expected = "finite numbers [N, 4], xyxy in pixels"
            raise self.refuse("boxes", f"expected {expected}, got {describe(self.tensor('boxes'))}")
        height, width = size_hw
        limits = torch.tensor([width, height] * 2, dtype=torch.float64)
        inside = (boxes >= -OUTSIDE) & (boxes <= limits + OUTSIDE)
        if not inside.all():
            wrong = [round(one, 2) for one in boxes[~inside.all(1)][0].tolist()]
            size = f"the image is {width} wide and {height} high"
            hint = "v2.ClampBoundingBoxes() cuts boxes off"
            raise self.refuse("boxes", f"{wrong} is not inside, {size}; {hint}")
        return self.keep("boxes", boxes.clamp(torch.zeros(4, dtype=torch.float64), limits))


def describe(tensor: torch.Tensor) -> str:
    """Return dtype and shape in words."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def augment_labeled(
    function: UserFunction, image: torch.Tensor, label: int, num_classes: int, sample: str
) -> tuple[torch.Tensor, int]:
    """Augment an image, uint8 [3, H, W], with its label.

    The function gets {"image": Image, "label": int64 scalar}.
    """
    parts = {"image": tv_tensors.Image(image.clone()), "label": torch.tensor(label)}
    result = Result(function, parts, sample)
    image, labels = result.image(), result.ids("label", num_classes)
    if labels.ndim:
        raise result.refuse("label", f"expected one number, got {describe(labels)}")
    result.record()
    return image, int(labels)


def augment_boxes(
    function: UserFunction,
    image: torch.Tensor,
    boxes_xyxy: torch.Tensor,
    labels: torch.Tensor,
    num_classes: int,
    sample: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Augment an image, uint8 [3, H, W], with boxes [G, 4] xyxy in pixels and labels int64 [G].

    The function gets {"image": Image, "boxes": BoundingBoxes float32 [G, 4] XYXY, "labels"}.
    """
    size_hw = tuple(image.shape[-2:])
    parts = {
        "image": tv_tensors.Image(image.clone()),
        "boxes": tv_tensors.BoundingBoxes(boxes_xyxy.float(), format="XYXY", canvas_size=size_hw),
        "labels": labels.clone(),
    }
    result = Result(function, parts, sample)
    image = result.image()
    boxes = result.boxes(image.shape[-2:])
    labels = result.rows("labels", "boxes", len(boxes), num_classes)
    result.record()
    return image, boxes, labels


def augment_mask(
    function: UserFunction, image: torch.Tensor, ids: torch.Tensor, num_classes: int, sample: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Augment an image, uint8 [3, H, W], with a mask of class ids, uint8 [H, W], 255 ignored.

    The function gets {"image": Image, "mask": Mask uint8 [H, W]}.
    """
    parts = {"image": tv_tensors.Image(image.clone()), "mask": tv_tensors.Mask(ids.clone())}
    result = Result(function, parts, sample)
    image = result.image()
    mask = result.mask("mask", image.shape[-2:])
    if wrong := mask[(mask != IGNORED) & ((mask < 0) | (mask >= num_classes))].tolist():
        expected = f"class ids from 0 to {num_classes - 1}, or {IGNORED}"
        raise result.refuse("mask", f"expected {expected}, got {wrong[0]}")
    mask = result.keep("mask", mask.to(torch.uint8))
    result.record()
    return image, mask


def augment_masks(
    function: UserFunction,
    image: torch.Tensor,
    masks: torch.Tensor,
    labels: torch.Tensor,
    ignored: torch.Tensor,
    num_classes: int,
    sample: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Augment an image, uint8 [3, H, W], with a mask for each segment.

    The function gets {"image": Image, "masks": Mask uint8 [N, H, W] of 0 and 1, "labels": int64
    [N], "ignored": Mask uint8 [H, W], 1 where nothing is known}.

    Returns:
        (image, masks bool [M, H, W], labels int64 [M], ignored uint8 [H, W]).
    """
    parts = {
        "image": tv_tensors.Image(image.clone()),
        "masks": tv_tensors.Mask(masks.to(torch.uint8)),
        "labels": labels.clone(),
        "ignored": tv_tensors.Mask(ignored.clone()),
    }
    result = Result(function, parts, sample)
    image = result.image()
    size_hw = image.shape[-2:]
    masks = result.tensor("masks")
    if not masks.numel():
        masks = masks.new_zeros((0, *size_hw))
    if masks.ndim != 3 or masks.shape[-2:] != size_hw:
        expected = f"[N, {size_hw[0]}, {size_hw[1]}], the size of the image"
        raise result.refuse("masks", f"expected {expected}, got {describe(masks)}")
    masks = result.keep("masks", masks != 0)
    labels = result.rows("labels", "masks", len(masks), num_classes)
    ignored = result.keep("ignored", (result.mask("ignored", size_hw) != 0).to(torch.uint8))
    result.record()
    return image, masks, labels, ignored


def augment_pair(
    function: UserFunction, hr: torch.Tensor, lr: torch.Tensor | None, sample: str
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Augment a crop of a high-resolution image, uint8 [3, s*h, s*w], and of its small one.

    The function gets {"image": Image} and, where the data has low-resolution images,
    {"low_resolution": Image}. Both must keep their size.
    """
    parts: Parts = {"image": tv_tensors.Image(hr.clone())}
    if lr is not None:
        parts["low_resolution"] = tv_tensors.Image(lr.clone())
    result = Result(function, parts, sample)
    hr = result.image(shape=hr.shape)
    if lr is not None:
        lr = result.image("low_resolution", shape=lr.shape)
    result.record()
    return hr, lr
