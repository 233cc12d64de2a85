"""Samples of an evaluation: the same ones every time, and those with the worst score, prediction beside truth."""

import math
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from visionloop.engine.seeding import COLLATE, SAMPLE, seed_host
from visionloop.engine.task import Reporting

SHOWN = 8  # samples of each kind
WIDEST, HIGHEST = 640, 960  # pixels; what a task draws larger is made smaller before it is kept
# of a run with images, besides the first; TensorBoard shows ten of a tag unless told otherwise
MOST_EVALUATIONS = 10
TRAINED_FOR_ONE = 50  # samples that are trained on for each one that is drawn


@dataclass(frozen=True)
class Shown:
    """One sample. score: nan where there is none; image: uint8 [H, W, 3], None where it was not drawn or can no longer be read."""

    index: int
    name: str
    score: float
    image: np.ndarray | None = None


def choose_samples(task, metric, dataset):
    """{"fixed": [Shown], "worst": [Shown], worst first}, without images. metric: merged over all ranks."""
    score_of = {}
    if task.sample_score is not None:
        ids, scores = task.sample_scores(metric)
        score_of = dict(zip(ids.tolist(), scores.tolist(), strict=True))

    def shown(index):
        return Shown(
            index, name_in(task.config.data, dataset.name(index)), score_of.get(index, math.nan)
        )

    chosen = {
        "fixed": fixed_samples(len(dataset)),
        "worst": worst_samples(score_of, task.sample_score),
    }
    return {kind: [shown(index) for index in indices] for kind, indices in chosen.items()}


def fixed_samples(num_samples, wanted=SHOWN):
    """Indices of at most so many samples, the same at every evaluation; spread, because an index is often sorted by class."""
    wanted = min(wanted, num_samples)
    return [(2 * i + 1) * num_samples // (2 * wanted) for i in range(wanted)]


def worst_samples(score_of, spec, wanted=SHOWN):
    """Indices of the samples with the worst scores, worst first, equal ones by index. score_of: {index: score}; nan is no score."""
    known = [index for index, score in score_of.items() if not math.isnan(score)]
    return sorted(
        known,
        key=lambda index: (score_of[index] if spec.higher_is_better else -score_of[index], index),
    )[:wanted]


def name_in(folder, path):
    """The path as it stands in the data folder, so that no record tells of a machine; another path as it is."""
    if folder is not None and Path(path).is_relative_to(folder):
        return Path(path).relative_to(folder).as_posix()
    return str(path)


def images_due(step, every, steps, batch_size):
    """True at the first evaluation of a run, at the last, and at no more than ten between, evenly spread.

    Fewer where more would be answers for over 2 % as many samples as are trained on. every: steps
    between evaluations, 0: the last alone.
    """
    evaluations = max(1, steps // every) if every else 1
    wanted = min(MOST_EVALUATIONS, max(1, steps * batch_size // (TRAINED_FOR_ONE * 2 * SHOWN)))
    return step in (every, steps) or (
        every > 0 and step // every % math.ceil(evaluations / wanted) == 0
    )


def draw_chosen(run, task, chosen):
    """The samples of `choose_samples` with their images, or None after a stop. Main rank only, with the weights that are shown.

    One forward for each sample alone, so that no answer depends on a neighbour; read and seeded as
    the evaluation did.
    """
    drawn = {}
    if type(task).draw_samples is Reporting.draw_samples:
        return chosen
    # parts compiled in place would be compiled again for a batch of one
    with (
        in_eval_mode(run.module),
        torch.compiler.set_stance("force_eager") if run.config.compile else nullcontext(),
    ):
        for one in (one for samples in chosen.values() for one in samples):
            if run.stop():
                return None
            if one.index not in drawn:
                drawn[one.index] = draw_sample(run, task, one.index)
    return {
        kind: [replace(one, image=drawn[one.index]) for one in samples]
        for kind, samples in chosen.items()
    }


def draw_sample(run, task, index):
    """uint8 [H, W, 3] of one validation sample; None when it can no longer be read, which it could a moment ago."""
    seed_host(SAMPLE, 0, 0, index)
    try:
        sample = run.val[index] | {"sample_id": torch.tensor(index)}
    except OSError:
        return None
    seed_host(COLLATE, 0, 0, 0)
    batch = task.collate_eval([sample]).to(run.world.device)
    with torch.no_grad():
        predictions = task.predict(run.module, batch)
    (image,) = task.draw_samples(batch, predictions)
    return thumbnail(image)


def draw_galleries(task, chosen):
    """{tag: uint8 [H, W, 3]}: one sheet of the fixed samples and one of the worst, with names and scores, where they are drawn."""
    sheets = {}
    for tag, samples in (("predictions", chosen["fixed"]), ("worst", chosen["worst"])):
        drawn = [one for one in samples if one.image is not None]
        sheet = (
            task.draw_gallery(
                [one.image for one in drawn],
                [caption_of(one, task.sample_score) for one in drawn],
            )
            if drawn
            else None
        )
        if sheet is not None:
            sheets[tag] = sheet
    return sheets


def caption_of(one, spec):
    """Two lines of text: the name and, where there is one, the score."""
    return [one.name] + ([] if math.isnan(one.score) else [f"{spec.label} {spec.show(one.score)}"])


def thumbnail(image):
    """A copy of uint8 [H, W, 3] that is made smaller where it is larger than what is kept."""
    pil_image = Image.fromarray(image)
    pil_image.thumbnail((WIDEST, HIGHEST), Image.Resampling.LANCZOS)
    return np.array(pil_image)


@contextmanager
def in_eval_mode(module):
    """Inside, every layer is in eval mode; afterwards each is as it was: a frozen backbone stays in it."""
    modes = [(layer, layer.training) for layer in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for layer, training in modes:
            layer.training = training
