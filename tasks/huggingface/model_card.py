"""The model card: README.md of best/ and of an export. What a stranger needs to use the weights; no paths of this machine."""

from pathlib import Path

MOST_CLASSES = 50  # listed by name; config.json holds them all


def write_card(folder, **parts):
    """README.md in `folder`; parts: see card_text."""
    (Path(folder) / "README.md").write_text(card_text(**parts))


def card_text(*, kind, pipeline_tag, task, scores, trained_on, use, images, shown, purpose=None):
    """The card as markdown.

    kind: the title's first words; scores: {metric key: value}; trained_on: (training, validation)
    numbers of images, None if unknown; use: Python that loads and applies the weights; images:
    how they are resized and scaled; shown: settings of the task that say how the weights came
    about; purpose: what the model does, where it has no classes.
    """
    title, does = (kind, purpose) if purpose else _of_classes(kind, task.classes)
    parts = [
        f"---\nlibrary_name: transformers\npipeline_tag: {pipeline_tag}\n---\n",
        f"# {title}\n",
        f"{does}\n",
    ]
    if trained_on:
        parts.append(f"Trained on {trained_on[0]} images and scored on {trained_on[1]} others.\n")
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
        parts.append(f"## Training\n\n{_recipe_text(task.config, shown)}")
    return "\n".join(parts)


def _of_classes(kind, classes):
    """(title, what the model does) of one that tells classes apart."""
    named = ", ".join(classes[:MOST_CLASSES]) + (
        f", ... ({len(classes)} in all, see config.json)" if len(classes) > MOST_CLASSES else ""
    )
    return f"{kind}, {len(classes)} classes", f"Answers with {named}."


def _recipe_text(config, shown):
    """The task's settings, one a line; folders by their last name alone."""
    start = (
        Path(config.model).name if config.model and Path(config.model).exists() else config.model
    )
    lines = [
        f"- start: {'random weights of' if config.from_scratch else 'weights of'} {start}, preset {config.preset}"
    ]
    lines += [f"- {name}: {getattr(config, name)}" for name in shown]
    return "\n".join(lines) + "\n"
