"""TensorBoard output: scalars and their layout, images, tables, settings, the model card."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from visionloop.engine.logging.console import class_markdown
from visionloop.engine.metric import MetricSpec
from visionloop.engine.task import Task
from visionloop.engine.types import JsonObject, Scores

MOST_CLASSES = 30  # with a curve for each
# of JPEG; as PNG, sheets of samples took ten times as long and filled the disk
JPEG_QUALITY = 90
# settings by which runs of one folder are not compared
OMITTED_SETTINGS = ("task", "data_fingerprint")


class TensorBoardWriter:
    """Writes the event files of a run. The x axis is always the optimizer step. Main rank only.

    Args:
        folder: where the event files are.
        task: its metrics and charts give the layout.
        start_step: what an earlier start wrote for later steps is purged.
    """

    def __init__(self, folder: Path, task: Task | type[Task], start_step: int) -> None:
        # imported here: costs a second, and commands that do not train need no TensorBoard
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=start_step + 1 if start_step else None)
        self._task, self._with_classes = task, False
        self._lay_out()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write {tag: number}."""
        for tag, value in values.items():
            self._writer.add_scalar(tag, value, step)

    def images(self, step: int, images: Mapping[str, NDArray[np.uint8]]) -> None:
        """Write {name: uint8 [H, W, 3]} under the tags images/<name>."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        file_writer = self._writer.file_writer
        for name, image in images.items():
            encoded = io.BytesIO()
            Image.fromarray(image).save(encoded, "JPEG", quality=JPEG_QUALITY, subsampling=0)
            height, width = image.shape[:2]
            summary_image = Summary.Image(
                height=height, width=width, colorspace=3, encoded_image_string=encoded.getvalue()
            )
            value = Summary.Value(tag=f"images/{name}", image=summary_image)
            file_writer.add_summary(Summary(value=[value]), step)  # type: ignore[attr-defined]  # typed None

    def classes(
        self, step: int, spec: MetricSpec, per_class: Mapping[str, Mapping[str, float]]
    ) -> None:
        """Write the scores of each class: a table, and a curve for each where they are few.

        Args:
            step: optimizer steps done.
            spec: the task's first MetricSpec.
            per_class: the result of `Task.per_class_scores`.
        """
        if not per_class:
            return
        self.text(step, "classes", class_markdown(spec, per_class))
        columns = self._task.class_curves
        if len(per_class) > MOST_CLASSES or not columns:
            return
        if not self._with_classes:
            self._with_classes = True
            self._lay_out()
        curves = {
            f"per_class_{column}/{name}": row[column]
            for name, row in per_class.items()
            for column in columns
        }
        self.scalars(step, curves)

    def text(self, step: int, tag: str, markdown: str) -> None:
        """Write a text."""
        self._writer.add_text(tag, markdown, step)

    def time_breakdown(self, step: int, time_breakdown: Mapping[str, Mapping[str, float]]) -> None:
        """Write the table of where the wall time of this start went; see `Clock`."""
        rows = "\n".join(
            f"| {part} | {row['seconds']:.1f} | {100 * row['share']:.1f} % |"
            for part, row in time_breakdown.items()
        )
        self.text(step, "time", f"| part | seconds | share |\n| --- | ---: | ---: |\n{rows}")

    def result(self, step: int, settings: JsonObject, scores: Scores, card: str | None) -> None:
        """Write settings with the final scores, to compare runs by, and the model card.

        card: markdown, or None where there is none.
        """
        comparable = {
            name: value
            for name, value in settings.items()
            if name not in OMITTED_SETTINGS and isinstance(value, int | float | str | bool)
        }
        final = {f"final/{key}": value for key, value in scores.items()}
        self._writer.add_hparams(comparable, final, run_name=".", global_step=step)
        if card:
            self.text(step, "model card", without_front_matter(card))

    def flush(self) -> None:
        """Write what is buffered."""
        self._writer.flush()

    def close(self) -> None:
        """Write what is buffered and close the file."""
        self._writer.close()

    def _lay_out(self) -> None:
        """Arrange the charts.

        TensorBoard shows a chart once for each kind of run in its folder, unless it is the same for
        all of them, name and all.
        """
        class_columns = self._task.class_curves if self._with_classes else ()
        specs = {spec.key: spec for spec in self._task.metrics}
        training = {
            "losses": ["train/loss.*"],
            "loss, training and validation": ["train/loss$", "eval/val_loss$"],
            "learning rates": ["lr/.*"],
            "gradient norm": ["train/grad_norm$"],
        }
        charts = {
            "training": training,
            "evaluation": dict(score_groups(specs, self._task.score_charts)),
            "classes": {column: [f"per_class_{re.escape(column)}/.*"] for column in class_columns},
            "speed": {
                "samples a second": ["perf/samples_per_second$"],
                "step": ["perf/step_ms$"],
            },
        }
        self._writer.add_custom_scalars(
            {
                category: {title: ["Multiline", tags] for title, tags in group.items()}
                for category, group in charts.items()
            }
        )


def score_groups(
    metrics: Mapping[str, MetricSpec], charts: Mapping[str, Sequence[str]]
) -> list[tuple[str, list[str]]]:
    """Return [(title, patterns of tags)], the charts of scores.

    Args:
        metrics: {key: MetricSpec}.
        charts: {title: patterns of metric keys}, see `Task.score_charts`. A score that is in none
            of them gets its own chart.
    """
    grouped = {
        title: [key for key in metrics for pattern in patterns if re.fullmatch(pattern, key)]
        for title, patterns in charts.items()
    }
    alone = {
        spec.label: [key]
        for key, spec in metrics.items()
        if not any(key in keys for keys in grouped.values())
    }
    return [
        (title, [f"{kind}/{re.escape(key)}$" for key in keys for kind in ("eval", "eval_raw")])
        for title, keys in (grouped | alone).items()
        if keys
    ]


def without_front_matter(markdown: str) -> str:
    """Return a model card without the yaml at its top, which is meant for programs."""
    return re.sub(r"\A---\n.*?\n---\n", "", markdown, flags=re.DOTALL)
