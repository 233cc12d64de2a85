"""The TensorBoard of a run: scalars and their layout, images, tables, settings with final scores, the model card."""

import io
import re

from PIL import Image

from visionloop.engine.logging.console import class_markdown

MOST_CLASSES = 30  # with a curve for each
QUALITY = 90  # of JPEG; as PNG, sheets of samples took ten times as long and filled the disk
NOT_TOLD_APART = (
    "task",
    "data_fingerprint",
)  # settings that say nothing beside those of other runs


class TensorBoardWriter:
    """Writes the event files. Main rank only. The x axis everywhere is the optimizer step."""

    def __init__(self, folder, task, start_step):
        """What an earlier start wrote for steps after `start_step` is purged."""
        # imported here: costs a second, and commands that do not train need no TensorBoard
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=start_step + 1 if start_step else None)
        self._task, self._with_classes = task, False
        self._lay_out()

    def scalars(self, step, values):
        """values: {tag: number}."""
        for tag, value in values.items():
            self._writer.add_scalar(tag, value, step)

    def images(self, step, images):
        """images: {name: uint8 [H, W, 3]}, together under the tag images/<name>."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        for name, image in images.items():
            encoded = io.BytesIO()
            Image.fromarray(image).save(encoded, "JPEG", quality=QUALITY, subsampling=0)
            height, width = image.shape[:2]
            pil_image = Summary.Image(
                height=height, width=width, colorspace=3, encoded_image_string=encoded.getvalue()
            )
            self._writer.file_writer.add_summary(
                Summary(value=[Summary.Value(tag=f"images/{name}", image=pil_image)]), step
            )

    def classes(self, step, spec, per_class):
        """The scores of each class: a table, and a curve for each where they are few. per_class: of `Task.per_class_scores`."""
        if not per_class:
            return
        self.text(step, "classes", class_markdown(spec, per_class))
        columns = self._task.class_curves
        if len(per_class) > MOST_CLASSES or not columns:
            return
        if not self._with_classes:
            self._with_classes = True
            self._lay_out()
        self.scalars(
            step,
            {
                f"per_class_{column}/{name}": row[column]
                for name, row in per_class.items()
                for column in columns
            },
        )

    def text(self, step, tag, markdown):
        self._writer.add_text(tag, markdown, step)

    def time_breakdown(self, step, time_breakdown):
        """Where the wall time of this start went, as a table. time_breakdown: of `Clock.time_breakdown`."""
        rows = "\n".join(
            f"| {part} | {row['seconds']:.1f} | {100 * row['share']:.1f} % |"
            for part, row in time_breakdown.items()
        )
        self.text(step, "time", f"| part | seconds | share |\n| --- | ---: | ---: |\n{rows}")

    def result(self, step, settings, scores, card):
        """Settings with the final scores, to compare runs by, and the model card, markdown or None."""
        told = {name: value for name, value in settings.items() if name not in NOT_TOLD_APART}
        known = {
            name: value
            for name, value in told.items()
            if isinstance(value, int | float | str | bool)
        }
        self._writer.add_hparams(
            known,
            {f"final/{key}": value for key, value in scores.items()},
            run_name=".",
            global_step=step,
        )
        if card:
            self.text(step, "model card", without_front_matter(card))

    def flush(self):
        self._writer.flush()

    def close(self):
        self._writer.close()

    def _lay_out(self):
        """Arrange the charts. One that is not the same for all runs of a folder, name and all, is shown once for each kind of run."""
        class_columns = self._task.class_curves if self._with_classes else ()
        groups = score_groups(
            {spec.key: spec for spec in self._task.metrics}, self._task.score_charts
        )
        self._writer.add_custom_scalars(
            {
                "training": {
                    "losses": ["Multiline", ["train/loss.*"]],
                    "loss, training and validation": [
                        "Multiline",
                        ["train/loss$", "eval/val_loss$"],
                    ],
                    "rates": ["Multiline", ["lr/.*"]],
                    "gradient norm": ["Multiline", ["train/grad_norm$"]],
                },
                "evaluation": {title: ["Multiline", tags] for title, tags in groups},
                "classes": {
                    column: ["Multiline", [f"per_class_{re.escape(column)}/.*"]]
                    for column in class_columns
                },
                "speed": {
                    "samples a second": ["Multiline", ["perf/samples_per_second$"]],
                    "step": ["Multiline", ["perf/step_ms$"]],
                },
            }
        )


def score_groups(metrics, charts):
    """[(title, patterns of tags)]: the charts of the task, then one for each score that is in none of them."""
    grouped = {
        title: [key for key in metrics for pattern in patterns if re.fullmatch(pattern, key)]
        for title, patterns in charts.items()
    }
    alone = {
        spec.label: [key]
        for key, spec in metrics.items()
        if not any(key in keys for keys in grouped.values())
    }
    shown = {title: keys for title, keys in (grouped | alone).items() if keys}
    return [
        (title, [f"{kind}/{re.escape(key)}$" for key in keys for kind in ("eval", "eval_raw")])
        for title, keys in shown.items()
    ]


def without_front_matter(markdown):
    """A model card without the yaml at its top, which is meant for programs."""
    return re.sub(r"\A---\n.*?\n---\n", "", markdown, flags=re.DOTALL)
