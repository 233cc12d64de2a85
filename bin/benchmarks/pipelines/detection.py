"""Images with boxes to normalised batches, as torchvision's reference and the library do it."""

from functools import partial

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2
from transformers import RTDetrImageProcessor, RTDetrImageProcessorPil

from visionloop.bin.benchmarks.pipelines.classification import open_image

DOES = {
    "torchvision": "equal work: PIL, then v2 on tensors with boxes: photometric distortion, zoom out, IoU crop, flip, resize, sanitize",
    "torchvision, weak": "less than ours, no zoom out and no IoU crop: PIL, then v2: photometric distortion, flip, resize, sanitize",
    "RTDetrImageProcessor": "less than ours, no augmentation: PIL, then resize, rescale, boxes, of the whole batch by torchvision",
    "RTDetrImageProcessorPil": "less than ours, no augmentation: PIL, then resize, rescale, boxes, of the whole batch by PIL",
}


def pipelines(task, dataset):
    """{name: indices -> {"pixel_values": float32 [B, 3, S, S], "labels": B dicts of "boxes" [G, 4] cxcywh in 0..1 and "class_labels"}}.

    Augmentation as the task's settings say. None of these normalises beyond 0..1, and neither does
    D-FINE.
    """
    config, side = task.config, task.image_size
    colours, sane = (
        v2.RandomPhotometricDistort(p=config.photometric),
        v2.SanitizeBoundingBoxes(min_size=1),
    )
    flip, resize = v2.RandomHorizontalFlip(0.5 if config.hflip else 0), v2.Resize([side, side])
    crop = [
        v2.RandomZoomOut(p=config.zoom_out),
        v2.RandomApply([v2.RandomIoUCrop()], p=config.iou_crop),
        sane,
    ]
    size = {"height": side, "width": side}
    return {
        "torchvision": partial(
            by_torchvision, dataset.index, v2.Compose([colours, *crop, flip, resize, sane])
        ),
        "torchvision, weak": partial(
            by_torchvision, dataset.index, v2.Compose([colours, flip, resize, sane])
        ),
        "RTDetrImageProcessor": partial(
            by_processor, dataset.index, RTDetrImageProcessor(size=size)
        ),
        "RTDetrImageProcessorPil": partial(
            by_processor, dataset.index, RTDetrImageProcessorPil(size=size)
        ),
    }


def by_torchvision(index, transform, indices):
    pixels, labels = [], []
    for i in indices:
        image = v2.functional.to_image(open_image(index.path(i)))
        boxes, ids, crowd, _ = index.boxes_of(i)
        boxes = tv_tensors.BoundingBoxes(
            boxes[~crowd], format="XYWH", canvas_size=image.shape[-2:], dtype=torch.float32
        )
        boxes = v2.functional.convert_bounding_box_format(boxes, new_format="XYXY")
        sample = transform(
            {
                "image": image,
                "boxes": boxes,
                "labels": torch.from_numpy(ids[~crowd].astype("int64")),
            }
        )
        height, width = sample["image"].shape[-2:]
        boxes = v2.functional.convert_bounding_box_format(
            sample["boxes"], new_format="CXCYWH"
        ).as_subclass(torch.Tensor)
        labels.append(
            {
                "boxes": boxes / torch.tensor([width, height, width, height]),
                "class_labels": sample["labels"],
            }
        )
        pixels.append(
            v2.functional.to_dtype(sample["image"], torch.float32, scale=True).as_subclass(
                torch.Tensor
            )
        )
    return {"pixel_values": torch.stack(pixels), "labels": labels}


def by_processor(index, processor, indices):
    annotations = [{"image_id": i, "annotations": annotations_of(index, i)} for i in indices]
    return processor(
        images=[open_image(index.path(i)) for i in indices],
        annotations=annotations,
        return_tensors="pt",
    )


def annotations_of(index, i):
    """COCO's objects of an image, as the library's examples keep them."""
    columns = (column.tolist() for column in index.boxes_of(i))
    return [
        {"bbox": box, "category_id": label, "iscrowd": int(crowd), "area": area}
        for box, label, crowd, area in zip(*columns, strict=True)
    ]
