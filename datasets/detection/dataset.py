"""Images with boxes as samples for a detector."""

import numpy as np
import torch
from torch.utils.data import Dataset

from visionloop.datasets.cache.decoded import DecodedImages
from visionloop.datasets.io.images import UnreadableImage


class DetectionDataset(Dataset):
    """Samples of a DetectionIndex; pixels and boxes after `transform(image, boxes_xyxy) -> pixels, boxes_cxcywh, keep`.

    images: where they come from, see training_images.py; None: from their files, whole. Of a
    scaled image the transform is also given the size of the whole one, in whose pixels the boxes
    are.

    A sample is {"pixel_values": uint8 [3, S, S], "boxes": float32 [G, 4] cxcywh in 0..1 of the
    pixel values, "class_labels": int64 [G], "size": int64 [2], height and width of the upright
    image}. Crowds are left out, boxes are clipped to the image and those of which nothing is
    left are dropped. with_truth adds "truth": {"boxes": float64 [T, 4] xywh in pixels as in the
    file, "labels": int64 [T], "crowd": bool [T], "areas": float64 [T]}, numpy arrays with
    everything, which is what evaluation compares with.
    """

    def __init__(self, index, transform, with_truth=False, images=None):
        self.index, self.transform, self.with_truth = index, transform, with_truth
        self.images = images or DecodedImages(index)

    def __len__(self):
        return len(self.index)

    def __getitem__(self, i):
        """Raises UnreadableImage, an OSError, that names the file; also where its size is not that of the annotations."""
        image, *whole_hw = self.images(i)
        height, width = whole_hw[0].tolist() if whole_hw else image.shape[-2:]
        why = size_mismatch(self.index, i, (height, width))
        if why:
            raise UnreadableImage(self.index.path(i), why)
        boxes, labels, crowd, areas = self.index.boxes_of(i)
        boxes_xyxy, inside = clip_boxes(boxes, height, width)
        usable = inside & ~crowd
        pixel_values, boxes_cxcywh, keep = self.transform(
            image, torch.from_numpy(boxes_xyxy[usable]), *whole_hw
        )
        sample = {
            "pixel_values": pixel_values,
            "boxes": boxes_cxcywh,
            "class_labels": torch.from_numpy(labels[usable].astype(np.int64))[keep],
            "size": torch.tensor([height, width]),
        }
        if self.with_truth:
            sample["truth"] = {
                "boxes": boxes,
                "labels": labels.astype(np.int64),
                "crowd": crowd,
                "areas": areas,
            }
        return sample

    @property
    def classes(self):
        return self.index.classes

    def name(self, i):
        """Path of image i, for messages."""
        return self.index.path(i)

    def kept_bytes(self):
        """(bytes of images that this process keeps now, and once all were read)."""
        return self.images.kept_bytes()

    def fingerprint(self):
        return self.index.fingerprint()

    def subset(self, indices):
        """A dataset of these images alone, in this order, with the same transform."""
        return DetectionDataset(
            self.index.subset(indices),
            self.transform,
            self.with_truth,
            self.images.subset(indices),
        )


def clip_boxes(boxes_xywh, height, width):
    """(boxes float64 [G, 4] xyxy clipped to the image, bool [G] where something is left). boxes_xywh: float64 [G, 4], pixels."""
    corners = np.concatenate([boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]], axis=1)
    corners = corners.clip(0, [width, height, width, height])
    return corners, (corners[:, 2:] > corners[:, :2]).all(axis=1)


def size_mismatch(index, i, size_hw):
    """What to say when image i, upright, is not of the size that the annotations give; None when it is or they give none."""
    expected = index.sizes_hw[i]
    if not expected.all() or tuple(expected) == tuple(size_hw):
        return None
    turned = tuple(expected[::-1]) == tuple(size_hw)
    hint = ": the boxes were drawn before its EXIF orientation was applied" if turned else ""
    return f"is {size_hw[0]} x {size_hw[1]} (height x width), the annotations say {expected[0]} x {expected[1]}{hint}"
