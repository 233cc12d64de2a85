"""Evaluation of runs on the same validation images. Imports torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from visionloop.bin.commands.evaluate import evaluate_with_progress
from visionloop.engine.errors import UserError
from visionloop.engine.evaluation.paired_bootstrap import ScoreImages
from visionloop.engine.metric import Metric
from visionloop.engine.task import Task
from visionloop.engine.types import Scores
from visionloop.metrics.coco_metric import CocoMetric

CLASS_PREFIX = "class: "  # of the keys of scores by class


@dataclass(frozen=True)
class EvidenceOptions:
    """Data and machine of the evaluation. data, val_split: None as the first run."""

    data: str | None
    val_split: float | None
    batch_size: int
    workers: int
    device: str | None


@dataclass(frozen=True)
class Evidence:
    """A model's evaluation, and the names of its images in order."""

    task: Task
    metric: Metric
    names: list[str]

    def scorer(self, positions: NDArray[np.int64]) -> ScoreImages:
        """Return the function that scores the images at places of `positions`.

        positions: int64 [N], places of the images of the first run in this evaluation.
        """

        def score(picks: NDArray[np.int64] | None) -> Scores:
            chosen = None if picks is None else positions[picks]
            metric = self.metric
            if isinstance(metric, CocoMetric):
                # the scores by size take several times as long, so that `compute` leaves them out
                scores = metric.compute_all(chosen)
            else:
                scores = metric.compute(chosen)
            columns = self.task.class_curves
            rows = self.task.per_class_scores(self.metric, chosen) if columns else {}
            return scores | {CLASS_PREFIX + name: row[columns[0]] for name, row in rows.items()}

        return score


def evaluate_run(
    task_class: type[Task], run: Path, data: str, val_split: float, options: EvidenceOptions
) -> Evidence:
    """Evaluate the best weights of a run on the validation images."""
    task, module = task_class.load_trained(run / "best", data=data, val_split=val_split)
    dataset = task.build_eval_dataset("val")
    metric = evaluate_with_progress(
        task,
        module,
        dataset,
        batch_size=options.batch_size,
        workers=options.workers,
        device=options.device,
        description=run.name,
    )
    return Evidence(task, metric, [dataset.name(index) for index in range(len(dataset))])


def positions_of(names: Sequence[str], others: Sequence[str]) -> NDArray[np.int64]:
    """Return the places of names among others, int64 [N].

    Raises UserError for other images, and for a name that is there twice.
    """
    place_of = {name: place for place, name in enumerate(others)}
    if sorted(names) != sorted(others) or len(place_of) < len(others):
        raise UserError(
            f"--data: the runs see {len(names)} and {len(others)} validation images that are "
            "not the same; expected the same data and split for all",
            field="data",
        )
    return np.array([place_of[name] for name in names], dtype=np.int64)
