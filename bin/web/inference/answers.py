"""Prediction of one image with a loaded model, for every task, as a page shows it.

Runs in a worker: imports torch.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from visionloop.bin.web.inference.messages import (
    Answer,
    Box,
    ClassScore,
    ClassShare,
    ImageName,
    Question,
)
from visionloop.datasets.io.images import UnreadableImage, read_image, read_size
from visionloop.datasets.io.matlab_resize import matlab_resize
from visionloop.engine.errors import UserError
from visionloop.engine.precision import exact_products
from visionloop.engine.task import Task
from visionloop.engine.types import JsonObject, Predictions, TaskModule
from visionloop.tasks.classification.attention_rollout import MODEL_TYPES
from visionloop.tasks.classification.task import ClassificationTask
from visionloop.tasks.segmentation.task import SegmentationTask
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
    def answer(self, question: Question) -> Answer:
        """Predict one image and write the images of the answer.

        Raises:
            UserError: the image cannot be read, has too many pixels, or the model cannot explain.
        """
        path, output = Path(question.image), Path(question.output)
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
            answer = Answer(task=self.task.name, width=width, height=height, prediction=row)
            FILLERS[self.task.name](self, answer, predictions, question)
            if question.attention:
                (drawn,) = self.task.explain(self.module, batch, ATTENTION)
                save(answer, output, ATTENTION, drawn)
        return answer

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


def fill_classification(
    model: LoadedModel, answer: Answer, predictions: Predictions, question: Question
) -> None:
    """Add the best classes, as many as were asked for."""
    assert isinstance(model.task, ClassificationTask)
    classes = model.task.classes
    # stable, as in the rows of predictions.jsonl: ties go to the lower id
    order = predictions["logits"][0].softmax(dim=0).cpu().sort(descending=True, stable=True)
    best = zip(order.indices.tolist(), order.values.tolist(), strict=True)
    answer.top = [
        ClassScore(id=i, label=classes[i], score=round(score, 6))
        for i, score in list(best)[: question.top_k]
    ]
    if model.task.model_type in MODEL_TYPES:
        answer.explanations = [ATTENTION]


def fill_detection(
    model: LoadedModel, answer: Answer, predictions: Predictions, question: Question
) -> None:
    """Add the boxes above the lowest score that `predict` writes; a page filters them further."""
    answer.boxes = [box_of(detection) for detection in answer.prediction["detections"]]
    answer.boxes.sort(key=lambda box: -box.score)


def box_of(detection: JsonObject) -> Box:
    x, y, width, height = detection["box"]
    corners = (x, y, round(x + width, 3), round(y + height, 3))
    return Box(box=corners, label=detection["label"], id=detection["id"], score=detection["score"])


def fill_segmentation(
    model: LoadedModel, answer: Answer, predictions: Predictions, question: Question
) -> None:
    """Add the class of each pixel as a gray image, and the color and share of the classes in it."""
    assert isinstance(model.task, SegmentationTask)
    colors = model.task.colors
    answer.classes = [
        ClassShare(**one, color=tuple(colors[one["id"]].tolist()))
        for one in answer.prediction["classes"]
    ]
    save(answer, Path(question.output), "ids", predictions["ids"][0].cpu().numpy())


def fill_super_resolution(
    model: LoadedModel, answer: Answer, predictions: Predictions, question: Question
) -> None:
    """Add the result, and the input at its size by MATLAB's bicubic, with the same profile."""
    assert isinstance(model.task, SuperResolutionTask)
    path, output = Path(question.image), Path(question.output)
    (result,) = model.task.prediction_images([path], predictions)["results"]
    assert isinstance(result, Image.Image)
    save(answer, output, "result", result)
    pixels = read_image(path).permute(1, 2, 0).numpy()
    enlarged = matlab_resize(pixels, model.task.scale) if model.task.scale > 1 else pixels
    before = Image.fromarray(enlarged)
    if "icc_profile" in result.info:
        before.info["icc_profile"] = result.info["icc_profile"]
    save(answer, output, "input", before)


def save(
    answer: Answer, folder: Path, name: ImageName, image: NDArray[np.uint8] | Image.Image
) -> None:
    """Write an image of an answer as PNG, and name it there."""
    pil_image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    pil_image.save(
        folder / f"{name}.png",
        compress_level=FAST_PNG,
        icc_profile=pil_image.info.get("icc_profile"),
        exif=pil_image.info.get("exif", b""),
    )
    answer.images.append(name)


Filler = Callable[[LoadedModel, Answer, Predictions, Question], None]
FILLERS: dict[str, Filler] = {
    "classification": fill_classification,
    "detection": fill_detection,
    "segmentation": fill_segmentation,
    "super_resolution": fill_super_resolution,
}
