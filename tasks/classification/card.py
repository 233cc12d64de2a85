"""The model card: README.md of best/ and of an export. What a stranger needs to use the weights; no paths of this machine."""

from pathlib import Path

from visionloop.tasks.classification.evaluate import METRICS

SHOWN = (
    "init", "label_smoothing", "class_weights", "mixup", "cutmix", "crop_scale_min", "hflip", "rand_augment_ops",
    "rand_augment_magnitude", "random_erasing", "drop_path", "layer_decay", "freeze",
)  # settings that say how the weights came about
MOST_CLASSES = 50  # listed by name; config.json holds them all


def write_card(folder, task, scores, trained_on):
    """README.md in `folder`. scores: {metric key: value}; trained_on: (training, validation) numbers of pictures, or None if unknown."""
    (Path(folder) / "README.md").write_text(card_text(task, scores, trained_on))


def card_text(task, scores, trained_on):
    """The card as markdown."""
    transform, classes = task.eval_transform, task.classes
    resize = transform.resize if isinstance(transform.resize, tuple) else f"shorter side {transform.resize}"
    named = ", ".join(classes[:MOST_CLASSES]) + (f", ... ({len(classes)} in all, see config.json)" if len(classes) > MOST_CLASSES else "")
    parts = [
        "---\nlibrary_name: transformers\npipeline_tag: image-classification\n---\n",
        f"# Image classifier, {len(classes)} classes\n",
        f"Answers with one of: {named}.\n",
    ]
    if trained_on:
        parts.append(f"Trained on {trained_on[0]} pictures and scored on {trained_on[1]} others.\n")
    if scores:
        rows = "".join(f"| {spec.label} | {spec.show(scores[spec.key])} |\n" for spec in METRICS if spec.key in scores)
        parts.append(f"## Scores\n\n| score | value |\n|---|---|\n{rows}")
    parts.append(f"## Use\n\n```python\n{USE}```\n")
    parts.append(
        "## Pictures\n\n"
        f"Resized to {resize} ({transform.interpolation}, antialiased), {transform.size} x {transform.size} from the centre, "
        f"scaled to 0..1, mean {list(transform.mean)}, std {list(transform.std)}. `preprocessor_config.json` says the same: "
        "with another resize the scores change.\n"
    )
    if trained_on:
        parts.append(f"## Training\n\n{_recipe_text(task.config)}")
    return "\n".join(parts)


USE = """\
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

processor = AutoImageProcessor.from_pretrained("THIS FOLDER")
model = AutoModelForImageClassification.from_pretrained("THIS FOLDER")
logits = model(**processor(Image.open("picture.jpg").convert("RGB"), return_tensors="pt")).logits
print(model.config.id2label[logits.argmax().item()])
"""


def _recipe_text(config):
    """The task's settings, one a line; folders by their last name alone."""
    start = Path(config.model).name if config.model and Path(config.model).exists() else config.model
    lines = [f"- start: {'random weights of' if config.from_scratch else 'weights of'} {start}, preset {config.preset}"]
    lines += [f"- {name}: {getattr(config, name)}" for name in SHOWN]
    return "\n".join(lines) + "\n"
