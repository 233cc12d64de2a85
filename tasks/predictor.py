"""Python interface to a trained model, for notebooks and programs: scores and predictions."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from visionloop.engine.data.forkserver import start_fork_server
from visionloop.engine.distributed import World, pick_device
from visionloop.engine.evaluation.evaluate import evaluate_dataset
from visionloop.engine.logging.console import bar
from visionloop.engine.predict import PredictedBatch, num_batches, predict_batch, read_batches
from visionloop.engine.task import Task
from visionloop.engine.types import JsonObject, Scores
from visionloop.tasks.input_images import find_images

ImageInput = str | Path | NDArray[np.uint8] | Image.Image


class Predictor:
    """A trained model, loaded once.

    Args:
        task_class: class of the task, e.g. ClassificationTask.
        folder: best/ of a run, a checkpoint, or any Hugging Face folder.
        device: as `--device`; None: CUDA if there is one, then MPS, then the CPU.
        settings: settings of the task by name, as `predict` takes them, e.g. tile=256.

    Raises:
        UserError: the folder holds no model of this task.

    Example:
        >>> model = Predictor(ClassificationTask, "runs/flowers/best")
        >>> model.evaluate("flowers")["accuracy"]
        >>> [prediction["label"] for prediction in model.predict("photos")]
    """

    def __init__(
        self,
        task_class: type[Task],
        folder: str | Path,
        device: str | None = None,
        **settings: object,
    ) -> None:
        self.task_class, self.folder, self.settings = task_class, folder, settings
        self.device = pick_device(device)
        if self.device.type == "cuda":
            start_fork_server()  # for the workers of `evaluate`, before the GPU is used
        self.task, module = task_class.load_trained(folder, **settings)  # type: ignore[arg-type]  # a task's own
        self.module = module.to(self.device)

    def evaluate(
        self, data: str | Path, split: str = "val", *, batch_size: int = 32, workers: int = 0
    ) -> Scores:
        """Evaluate the model on a split of a data folder.

        Args:
            data: the data folder; its labels are matched to the model's by name.
            split: "train", "val" or "test".
            batch_size: images in a batch.
            workers: number of workers that read images; 0: read them in this process.

        Returns:
            {metric key: score}.
        """
        task, _ = self.task_class.load_trained(
            self.folder,
            data=str(data),
            **self.settings,  # type: ignore[arg-type]  # a task's own
        )
        dataset = task.build_eval_dataset(split)
        with bar(total=len(dataset), desc="evaluating", unit="image", leave=False) as progress:
            metric = evaluate_dataset(
                task,
                self.module,
                dataset,
                batch_size=batch_size,
                workers=workers,
                world=World(0, 0, 1, self.device),
                advance=progress.update,
            )
        assert metric is not None  # it is None after a stop alone
        return metric.compute()

    def predict(
        self, images: str | Path | Sequence[ImageInput], *, batch_size: int = 8, draw: bool = True
    ) -> list[JsonObject]:
        """Predict images.

        Args:
            images: a folder, a file, or a list of files, arrays (uint8 [H, W, 3] or [H, W]) and
                Pillow images.
            batch_size: images in a batch.
            draw: draw the predictions on the images.

        Returns:
            One dict for each image, in order: its row of predictions.jsonl ({"file", "error"} for
            an image that cannot be read), and arrays of uint8 with it: with `draw` "image"
            [H, W, 3], the image with its predictions; predictions that are images under the name of
            the command's folder, "ids" and "colors" of segmentation, "results" of super-resolution.
            "file" is None for an image that is no file.
        """
        with tempfile.TemporaryDirectory() as scratch:
            root, names, files = list_images(images, Path(scratch))
            rows = self._predict_files(root, names, batch_size, draw)
            return [row | {"file": file} for row, file in zip(rows, files, strict=True)]

    def _predict_files(
        self, root: Path, names: Sequence[str], batch_size: int, draw: bool
    ) -> list[JsonObject]:
        numbers = range(num_batches(len(names), batch_size))
        kinds = ("images",) if draw else ()
        rows: list[JsonObject] = []
        with bar(total=len(names), desc="predicting", unit="image", leave=False) as progress:
            for read in read_batches(
                self.task, root, names, batch_size=batch_size, numbers=numbers
            ):
                predicted = predict_batch(
                    self.task, self.module, read, root, names, self.device, kinds=kinds
                )
                rows += add_images(predicted)
                progress.update(len(predicted.rows))
        return rows


def add_images(predicted: PredictedBatch) -> list[JsonObject]:
    """Return the rows of a batch, with the images of each readable file added."""
    readable = iter([row for row in predicted.rows if "error" not in row])
    images = {
        "image" if kind == "images" else kind: arrays
        for kind, arrays in [*predicted.drawn.items(), *predicted.images.items()]
    }
    for arrays in zip(*images.values(), strict=True):
        next(readable).update(zip(images, map(np.asarray, arrays), strict=True))
    return predicted.rows


def list_images(
    images: str | Path | Sequence[ImageInput], scratch: Path
) -> tuple[Path, list[str], list[str] | list[str | None]]:
    """List the images of `Predictor.predict`; arrays and Pillow images are written into `scratch`.

    Returns:
        (root folder, names relative to it, "file" of each image).
    """
    if isinstance(images, str | Path):
        root, names = find_images(images)
        return root, names, names
    names = []
    files: list[str | None] = []
    for i, image in enumerate(images):
        if isinstance(image, str | Path):
            names.append(str(Path(image).absolute()))
            files.append(str(image))
            continue
        pil_image = image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image))
        if pil_image.mode not in ("L", "RGB", "RGBA"):
            pil_image = pil_image.convert("RGB")
        pil_image.save(scratch / f"{i}.png")
        names.append(str(scratch / f"{i}.png"))
        files.append(None)
    return Path(), names, files
