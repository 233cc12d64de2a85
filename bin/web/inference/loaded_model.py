"""A loaded model of any task, which predicts one image as a page shows it.

Runs in a worker: imports torch.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from visionloop.bin.web.inference.messages import (
    Box,
    ClassScore,
    ClassShare,
    ImageName,
    Prediction,
    PredictionRequest,
    Segment,
)
from visionloop.datasets.io.images import UnreadableImage, read_image, read_size
from visionloop.datasets.io.matlab_resize import matlab_resize
from visionloop.engine.errors import UserError
from visionloop.engine.precision import exact_products
from visionloop.engine.task import Task
from visionloop.engine.types import JsonObject, Predictions, TaskModule
from visionloop.tasks.classification.attention_rollout import MODEL_TYPES
from visionloop.tasks.classification.task import ClassificationTask
from visionloop.tasks.segmentation.panoptic.saved_predictions import SEGMENTS
from visionloop.tasks.segmentation.panoptic.task import PanopticTask
from visionloop.tasks.segmentation.semantic.task import SemanticTask
from visionloop.tasks.super_resolution.task import SuperResolutionTask

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
UNREADABLE = "unreadable_sample"
ATTENTION: ImageName = "attention"
FAST_PNG = 1  # compression level: a fifth of the default's time for a tenth more bytes


class LoadedModel:
    """A model of a task, on its device.

    Args:
        task: the task.
        module: in eval mode, on `device`.
        device: where the module is.
        max_pixels: of an image, before and after the prediction.
    """

    def __init__(
        self, task: Task, module: TaskModule, device: torch.device, max_pixels: int
    ) -> None:
        self.task, self.module, self.device = task, module, device
        self.max_pixels = max_pixels

    @torch.no_grad()
    def predict(self, request: PredictionRequest) -> Prediction:
        """Predict one image and write the images of the prediction.

        Raises:
            UserError: the image cannot be read, has too many pixels, or the model cannot explain.
        """
        path, output = Path(request.image), Path(request.output)
        height, width = check_image(path, self.max_pixels)
        self.require_small_result(height * width)
        try:
            sample = self.task.read_sample(path)
        except UnreadableImage as error:
            raise unreadable(error.why) from None
        sample["sample_id"] = torch.tensor(0)
        batch = self.task.collate_eval([sample]).to(self.device)
        with exact_products(self.device):
            predictions = self.task.predict(self.module, batch)
            row = self.task.describe_predictions(batch, predictions, [path.name])[0]
            prediction = Prediction(task=self.task.name, width=width, height=height, prediction=row)
            ADD_RESULT[self.task.name](self, prediction, predictions, request)
            if request.attention:
                (drawn,) = self.task.explain(self.module, batch, ATTENTION)
                save(prediction, output, ATTENTION, drawn)
        return prediction

    def require_small_result(self, num_pixels: int) -> None:
        """Raise UserError for an image whose enlarged one has more pixels than the limit."""
        scale = self.task.scale if isinstance(self.task, SuperResolutionTask) else 1
        if num_pixels * scale**2 > self.max_pixels:
            raise too_large(f"the result at x{scale}", num_pixels * scale**2, self.max_pixels)


def check_image(path: Path, max_pixels: int) -> tuple[int, int]:
    """Return (height, width) of the upright image from its header.

    Raises:
        UserError: not one of FORMATS, or more pixels than the limit; nothing is decoded.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            num_pixels = image.width * image.height
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise too_large("the image", None, max_pixels) from None
    except MemoryError:
        raise
    except Exception:  # a reader given damaged bytes may raise anything
        raise unreadable(f"expected an image of {', '.join(FORMATS)}") from None
    if num_pixels > max_pixels:
        raise too_large("the image", num_pixels, max_pixels)
    try:
        return read_size(path)
    except UnreadableImage as error:
        raise unreadable(error.why) from None


def too_large(subject: str, num_pixels: int | None, max_pixels: int) -> UserError:
    count = "too many" if num_pixels is None else f"{num_pixels / 1e6:.1f} million"
    return UserError(
        f"image: {subject} has {count} pixels, expected at most {max_pixels / 1e6:.1f} million",
        code="too_large",
        field="image",
        hint="resize or crop the image",
    )


def unreadable(why: str) -> UserError:
    return UserError(
        f"image: {why}",
        code=UNREADABLE,
        field="image",
        hint="take another image, or open this one in a viewer and save it as PNG or JPEG",
    )


def add_classification(
    model: LoadedModel, prediction: Prediction, predictions: Predictions, request: PredictionRequest
) -> None:
    """Add the best classes, as many as were asked for."""
    assert isinstance(model.task, ClassificationTask)
    classes = model.task.classes
    # stable, as in the rows of predictions.jsonl: ties go to the lower id
    order = predictions["logits"][0].softmax(dim=0).cpu().sort(descending=True, stable=True)
    best = zip(order.indices.tolist(), order.values.tolist(), strict=True)
    prediction.top = [
        ClassScore(id=i, label=classes[i], score=round(score, 6))
        for i, score in list(best)[: request.top_k]
    ]
    if model.task.model_type in MODEL_TYPES:
        prediction.explanations = [ATTENTION]


def add_detection(
    model: LoadedModel, prediction: Prediction, predictions: Predictions, request: PredictionRequest
) -> None:
    """Add the boxes above the lowest score that `predict` writes; a page filters them further."""
    prediction.boxes = [box_of(detection) for detection in prediction.prediction["detections"]]
    prediction.boxes.sort(key=lambda box: -box.score)


def box_of(detection: JsonObject) -> Box:
    """Return the box of a detection of predictions.jsonl."""
    names = ("label", "id", "score")
    return Box(box=corners_of(detection["box"]), **{name: detection[name] for name in names})


def corners_of(box_xywh: Sequence[float]) -> tuple[float, float, float, float]:
    """Return x0, y0, x1, y1 of a box x, y, width, height."""
    x, y, width, height = box_xywh
    return x, y, round(x + width, 3), round(y + height, 3)


def add_segmentation(
    model: LoadedModel, prediction: Prediction, predictions: Predictions, request: PredictionRequest
) -> None:
    """Add the class of each pixel as a gray image, and the color and share of the classes in it."""
    assert isinstance(model.task, SemanticTask)
    colors = model.task.colors
    prediction.classes = [
        ClassShare(**one, color=tuple(colors[one["id"]].tolist()))
        for one in prediction.prediction["classes"]
    ]
    save(prediction, Path(request.output), "ids", predictions["ids"][0].cpu().numpy())


def add_instances(
    model: LoadedModel, prediction: Prediction, predictions: Predictions, request: PredictionRequest
) -> None:
    """Add the objects above the lowest score that the page can ask for."""
    rows = prediction.prediction["segments"]
    prediction.segments = [
        segment_of(row, number, is_thing=True) for number, row in enumerate(rows, start=1)
    ]


def add_panoptic(
    model: LoadedModel, prediction: Prediction, predictions: Predictions, request: PredictionRequest
) -> None:
    """Add the segments, and an image of the segment of each pixel."""
    assert isinstance(model.task, PanopticTask)
    rows = prediction.prediction["segments"]
    prediction.segments = [
        segment_of(row, row["segment"], is_thing=model.task.is_thing[row["id"]]) for row in rows
    ]
    prediction.segments.sort(key=lambda segment: -segment.score)
    (image,) = model.task.prediction_images([Path(request.image)], predictions)[SEGMENTS]
    save(prediction, Path(request.output), "segments", image)


def segment_of(row: JsonObject, number: int, *, is_thing: bool) -> Segment:
    """Return a segment of predictions.jsonl."""
    values = {name: row[name] for name in ("label", "id", "score", "area")}
    return Segment(number=number, box=corners_of(row["box"]), is_thing=is_thing, **values)


def add_super_resolution(
    model: LoadedModel, prediction: Prediction, predictions: Predictions, request: PredictionRequest
) -> None:
    """Add the result, and the input at its size by MATLAB's bicubic, with the same profile."""
    assert isinstance(model.task, SuperResolutionTask)
    path, output = Path(request.image), Path(request.output)
    (result,) = model.task.prediction_images([path], predictions)["results"]
    assert isinstance(result, Image.Image)
    save(prediction, output, "result", result)
    pixels = read_image(path).permute(1, 2, 0).numpy()
    enlarged = matlab_resize(pixels, model.task.scale) if model.task.scale > 1 else pixels
    before = Image.fromarray(enlarged)
    if "icc_profile" in result.info:
        before.info["icc_profile"] = result.info["icc_profile"]
    save(prediction, output, "input", before)


def save(
    prediction: Prediction, folder: Path, name: ImageName, image: NDArray[np.uint8] | Image.Image
) -> None:
    """Write an image of a prediction as PNG, and name it there."""
    pil_image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    pil_image.save(
        folder / f"{name}.png",
        compress_level=FAST_PNG,
        icc_profile=pil_image.info.get("icc_profile"),
        exif=pil_image.info.get("exif", b""),
    )
    prediction.images.append(name)


AddResult = Callable[[LoadedModel, Prediction, Predictions, PredictionRequest], None]
ADD_RESULT: dict[str, AddResult] = {
    "classification": add_classification,
    "detection": add_detection,
    "segmentation": add_segmentation,
    "instance_segmentation": add_instances,
    "panoptic_segmentation": add_panoptic,
    "super_resolution": add_super_resolution,
}
