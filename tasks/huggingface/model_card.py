"""The model card, README.md of best/ and of an export: usage and scores, without local paths."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from visionloop.engine.config.train_config import TaskConfig
from visionloop.engine.metric import MetricSpec
from visionloop.engine.types import Scores

MOST_CLASSES = 50  # listed by name; config.json holds them all


class CardTask(Protocol):
    """The part of a task that its model card reads."""

    @property
    def metrics(self) -> tuple[MetricSpec, ...]: ...

    @property
    def config(self) -> TaskConfig: ...


def write_card(
    folder: str | Path,
    *,
    kind: str,
    pipeline_tag: str,
    task: CardTask,
    scores: Scores,
    trained_on: Sequence[int] | None,
    use: str,
    images: str,
    settings: Sequence[str],
    classes: Sequence[str] = (),
    purpose: str = "",
) -> None:
    """Write README.md into the folder of a trained model.

    Args:
        folder: the Hugging Face folder.
        kind: start of the title, e.g. "Object detector".
        pipeline_tag: of the hub, e.g. "object-detection".
        task: for its metrics and settings.
        scores: {metric key: value}; may be empty.
        trained_on: numbers of (training, validation) images; None: unknown.
        use: Python code that loads and applies the model.
        images: how images are resized and scaled.
        settings: names of the task's settings to list.
        classes: class names of the model, unless `purpose` is set.
        purpose: what a model without classes does.
    """
    assert classes or purpose, "a card names the classes or the purpose of its model"
    title = kind if purpose else f"{kind}, {len(classes)} classes"
    parts = [
        f"---\nlibrary_name: transformers\npipeline_tag: {pipeline_tag}\n---\n",
        f"# {title}\n",
        f"{purpose or _list_classes(classes)}\n",
    ]
    if trained_on:
        training, validation = trained_on
        parts.append(f"Trained on {training} images and scored on {validation} others.\n")
    if scores:
        rows = "".join(
            f"| {spec.label} | {spec.show(scores[spec.key])} |\n"
            for spec in task.metrics
            if spec.key in scores
        )
        parts.append(f"## Scores\n\n| score | value |\n|---|---|\n{rows}")
    parts.append(f"## Use\n\n```python\n{use}```\n")
    resize = (
        ""
        if purpose
        else " `preprocessor_config.json` says the same: with another resize the scores change."
    )
    parts.append(f"## Images\n\n{images}{resize}\n")
    if trained_on:
        parts.append(f"## Training\n\n{_list_settings(task.config, settings)}")
    (Path(folder) / "README.md").write_text("\n".join(parts))


def _list_classes(classes: Sequence[str]) -> str:
    names = ", ".join(classes[:MOST_CLASSES])
    if len(classes) > MOST_CLASSES:
        names += f", ... ({len(classes)} in all, see config.json)"
    return f"Predicts {names}."


def _list_settings(config: TaskConfig, names: Sequence[str]) -> str:
    """List the start and the settings of a run, one a line; a local folder by its last name."""
    start = (
        Path(config.model).name if config.model and Path(config.model).exists() else config.model
    )
    weights = "random weights of" if config.from_scratch else "weights of"
    lines = [f"- start: {weights} {start}, preset {config.preset}"]
    lines += [f"- {name}: {getattr(config, name)}" for name in names]
    if config.augment:
        file, _, function = config.augment.rpartition(":")
        place = "in place of" if config.augment_only else "before"
        lines.append(f"- augment: {function} of {Path(file).name}, {place} the augmentation above")
    return "\n".join(lines) + "\n"
