"""A trained model in Python: its scores on data, and its answers for images as arrays. For notebooks and programs."""

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from visionloop.engine.distributed import World, pick_device
from visionloop.engine.evaluation.evaluate import evaluate_dataset
from visionloop.engine.logging.console import bar
from visionloop.engine.predict import answer, num_batches, read_batches
from visionloop.tasks.input_images import find_images


class Trained:
    """A trained model, loaded once.

    task_class: e.g. ClassificationTask; folder: a run's best/, a checkpoint or any Hugging Face
    folder; device: as `--device`; settings: of the task's own that `predict` has on the command
    line, e.g. tile=256. Raises UserError for a folder that holds no model.
    """

    def __init__(self, task_class, folder, *, device=None, **settings):
        self.task_class, self.folder, self.settings = task_class, folder, settings
        self.device = pick_device(device)
        self.task, module = task_class.load_trained(folder, **settings)
        self.module = module.to(self.device)

    def evaluate(self, data, split="val", *, batch_size=32, workers=0):
        """{metric key: score} of the images of a split of a data folder."""
        task, _ = self.task_class.load_trained(
            self.folder, data=str(data), **self.settings
        )  # with the data's labels, by name
        dataset = task.build_eval_dataset(split)
        with bar(total=len(dataset), desc="evaluating", unit="pic", leave=False) as shown:
            world = World(0, 0, 1, self.device)
            metric = evaluate_dataset(
                task,
                self.module,
                dataset,
                batch_size=batch_size,
                workers=workers,
                world=world,
                advance=shown.update,
            )
        return metric.compute()

    def predict(self, images, *, batch_size=8, draw=True):
        """[one dict for each image, in order]: the line that the command writes, and images of uint8 beside it.

        images: a folder, a file, or a list of files, arrays (uint8 [H, W, 3] or [H, W]) and
        Pillow images. "image": uint8 [H, W, 3], what is answered drawn on it, unless draw is
        False; answers that are images under the name of the command's folder: "ids" and "colors"
        of segmentation, "results" of super-resolution. "file" is None for what was no file;
        {"file", "error"} for one that cannot be read.
        """
        with tempfile.TemporaryDirectory() as scratch:
            root, names, files = listed(images, Path(scratch))
            return [
                row | {"file": file}
                for row, file in zip(
                    self._answer(root, names, batch_size, draw), files, strict=True
                )
            ]

    def _answer(self, root, names, batch_size, draw):
        numbers, found = range(num_batches(len(names), batch_size)), []
        with bar(total=len(names), desc="predicting", unit="pic", leave=False) as shown:
            for read in read_batches(
                self.task, root, names, batch_size=batch_size, numbers=numbers
            ):
                answers = answer(
                    self.task,
                    self.module,
                    read,
                    root,
                    names,
                    self.device,
                    kinds=("images",) * draw,
                )
                readable = iter([row for row in answers.rows if "error" not in row])
                kinds = {
                    "image" if kind == "images" else kind: made
                    for kind, made in (answers.drawn | answers.made).items()
                }
                for arrays in zip(*kinds.values(), strict=True):
                    next(readable).update(zip(kinds, map(np.asarray, arrays), strict=True))
                found += answers.rows
                shown.update(len(answers.rows))
        return found


def listed(images, scratch):
    """(root, names below it, what each is called) of the `images` of `predict`. What is no file is written into the folder `scratch`."""
    if isinstance(images, str | Path):
        root, names = find_images(images)
        return root, names, names
    names, files = [], []
    for i, image in enumerate(images):
        is_file = isinstance(image, str | Path)
        if not is_file:
            pil_image = (
                image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image))
            )
            (
                pil_image if pil_image.mode in ("L", "RGB", "RGBA") else pil_image.convert("RGB")
            ).save(scratch / f"{i}.png")
        names.append(str(Path(image).absolute() if is_file else scratch / f"{i}.png"))
        files.append(str(image) if is_file else None)
    return Path(), names, files
