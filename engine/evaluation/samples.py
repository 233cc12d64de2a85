"""Samples that an evaluation shows: some that are always the same, and those with the worst score.

Each is drawn as prediction beside ground truth.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from visionloop.engine.metric import Metric, MetricSpec
from visionloop.engine.precision import exact_products
from visionloop.engine.seeding import COLLATE, SAMPLE, seed_host
from visionloop.engine.task import Task
from visionloop.engine.types import SampleDataset

if TYPE_CHECKING:
    from visionloop.engine.run import Run

SAMPLES_PER_KIND = 8  # fixed samples, and as many of the worst
MAX_WIDTH, MAX_HEIGHT = 640, 960  # pixels; a larger drawing is made smaller before it is stored
# of a run with images, besides the first; TensorBoard shows ten of a tag by default
MAX_EVALUATIONS_WITH_IMAGES = 10
TRAINED_PER_DRAWN_SAMPLE = 50  # samples that are trained on for each one that is drawn


@dataclass(frozen=True)
class EvalSample:
    """One sample of the validation images.

    Attributes:
        index: its index in the dataset.
        name: its path in the data folder.
        score: its own score, nan where it has none.
        image: uint8 [H, W, 3], None where it was not drawn or can no longer be read.
    """

    index: int
    name: str
    score: float
    image: NDArray[np.uint8] | None = None


# {"fixed": samples, "worst": samples, worst first}; {} off the main rank
SelectedSamples: TypeAlias = dict[str, list[EvalSample]]


def select_samples(task: Task, metric: Metric, dataset: SampleDataset) -> SelectedSamples:
    """Select the fixed and the worst samples, without images. metric: merged over all ranks."""
    scores: dict[int, float] = {}
    if task.sample_score is not None:
        ids, values = task.sample_scores(metric)
        scores = dict(zip(ids.tolist(), values.tolist(), strict=True))

    def sample_at(index: int) -> EvalSample:
        name = relative_name(task.config.data, dataset.name(index))
        return EvalSample(index, name, scores.get(index, math.nan))

    indices = {
        "fixed": fixed_samples(len(dataset)),
        "worst": worst_samples(scores, task.sample_score),
    }
    return {kind: [sample_at(index) for index in chosen] for kind, chosen in indices.items()}


def fixed_samples(num_samples: int, count: int = SAMPLES_PER_KIND) -> list[int]:
    """Choose at most `count` indices, the same at every evaluation.

    They are spread evenly, since an index is often sorted by class.
    """
    count = min(count, num_samples)
    return [(2 * i + 1) * num_samples // (2 * count) for i in range(count)]


def worst_samples(
    scores: Mapping[int, float], spec: MetricSpec | None, count: int = SAMPLES_PER_KIND
) -> list[int]:
    """Return the indices of the worst scores, worst first, equal ones by index.

    Args:
        scores: {index: score}; nan is no score.
        spec: the description of the score; None for a task without one, whose scores are {}.
        count: most indices to return.
    """
    sign = 1 if spec is not None and spec.higher_is_better else -1
    valid = [index for index, score in scores.items() if not math.isnan(score)]
    return sorted(valid, key=lambda index: (sign * scores[index], index))[:count]


def relative_name(folder: str | None, path: str) -> str:
    """Return the path inside the data folder, so that no record names a machine's folders.

    A path outside of it is returned as it is.
    """
    if folder is not None and Path(path).is_relative_to(folder):
        return Path(path).relative_to(folder).as_posix()
    return str(path)


def images_due(step: int, every: int, steps: int, batch_size: int) -> bool:
    """Return True at the first evaluation, at the last, and at most ten evenly between.

    Fewer where drawing would predict over 2 % as many samples as are trained on.

    Args:
        step: a step with an evaluation.
        every: steps between evaluations; 0 for the last alone.
        steps: length of the run.
        batch_size: samples of one step.
    """
    evaluations = max(1, steps // every) if every else 1
    affordable = steps * batch_size // (TRAINED_PER_DRAWN_SAMPLE * 2 * SAMPLES_PER_KIND)
    with_images = min(MAX_EVALUATIONS_WITH_IMAGES, max(1, affordable))
    return step in (every, steps) or (
        every > 0 and step // every % math.ceil(evaluations / with_images) == 0
    )


def draw_selected_samples(
    run: Run, task: Task, selected: SelectedSamples
) -> SelectedSamples | None:
    """Add images to the selected samples; None after a stop.

    Main rank only, while the module has the weights that are evaluated. One forward for each sample
    alone, so that no prediction depends on other samples; read and seeded as in the evaluation.
    """
    if type(task).draw_samples is Task.draw_samples:
        return selected
    images: dict[int, NDArray[np.uint8] | None] = {}
    # parts compiled in place would be compiled again for a batch of one
    with (
        in_eval_mode(run.module),
        exact_products(run.world.device),
        torch.compiler.set_stance("force_eager") if run.config.compile else nullcontext(),
    ):
        for sample in (sample for samples in selected.values() for sample in samples):
            if run.stop():
                return None
            if sample.index not in images:
                images[sample.index] = draw_sample(run, task, sample.index)
    return {
        kind: [replace(sample, image=images[sample.index]) for sample in samples]
        for kind, samples in selected.items()
    }


def draw_sample(run: Run, task: Task, index: int) -> NDArray[np.uint8] | None:
    """Draw one validation sample, uint8 [H, W, 3]; None when it can no longer be read."""
    seed_host(SAMPLE, 0, 0, index)
    try:
        sample = run.val_set[index] | {"sample_id": torch.tensor(index)}
    except OSError:
        return None
    seed_host(COLLATE, 0, 0, 0)
    batch = task.collate_eval([sample]).to(run.world.device)
    with torch.no_grad():
        predictions = task.predict(run.module, batch)
    (image,) = task.draw_samples(batch, predictions)
    return thumbnail(image)


def draw_sample_sheets(task: Task, selected: SelectedSamples) -> dict[str, NDArray[np.uint8]]:
    """Draw a sheet of the fixed samples and one of the worst, with names and scores.

    Returns:
        {tag: uint8 [H, W, 3]}, without the kinds of which no sample was drawn.
    """
    sheets = {}
    for tag, kind in (("predictions", "fixed"), ("worst", "worst")):
        drawn = [sample for sample in selected[kind] if sample.image is not None]
        if not drawn:
            continue
        captions = [caption_of(sample, task.sample_score) for sample in drawn]
        sheet = task.draw_gallery(
            [sample.image for sample in drawn if sample.image is not None], captions
        )
        if sheet is not None:
            sheets[tag] = sheet
    return sheets


def caption_of(sample: EvalSample, spec: MetricSpec | None) -> list[str]:
    """Return lines of text: the name and, where there is one, the score."""
    if spec is None or math.isnan(sample.score):
        return [sample.name]
    return [sample.name, f"{spec.label} {spec.show(sample.score)}"]


def thumbnail(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Copy uint8 [H, W, 3], made smaller where it is larger than MAX_WIDTH x MAX_HEIGHT."""
    pil_image = Image.fromarray(image)
    pil_image.thumbnail((MAX_WIDTH, MAX_HEIGHT), Image.Resampling.LANCZOS)
    return np.array(pil_image)


@contextmanager
def in_eval_mode(module: nn.Module) -> Iterator[None]:
    """Put every layer in eval mode inside the context, and back as it was afterwards.

    A frozen backbone stays in eval mode. cuDNN does not measure its kernels meanwhile: images are
    of many sizes, and each would take longer than it gains.
    """
    modes = [(layer, layer.training) for layer in module.modules()]
    benchmark, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, False
    module.eval()
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = benchmark
        for layer, training in modes:
            layer.training = training
