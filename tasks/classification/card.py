"""What the model card says of a classifier."""

from visionloop.tasks.card import write_card

SHOWN = (
    "init", "label_smoothing", "class_weights", "mixup", "cutmix", "crop_scale_min", "hflip", "rand_augment_ops",
    "rand_augment_magnitude", "random_erasing", "drop_path", "layer_decay", "freeze",
)  # fmt: skip
USE = """\
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

processor = AutoImageProcessor.from_pretrained("THIS FOLDER")
model = AutoModelForImageClassification.from_pretrained("THIS FOLDER")
logits = model(**processor(Image.open("picture.jpg").convert("RGB"), return_tensors="pt")).logits
print(model.config.id2label[logits.argmax().item()])
"""


def write_classifier_card(folder, task, scores, trained_on):
    """README.md in `folder`. scores: {metric key: value}; trained_on: (training, validation) numbers of pictures, or None if unknown."""
    transform = task.eval_transform
    resize = transform.resize if isinstance(transform.resize, tuple) else f"shorter side {transform.resize}"
    pictures = (
        f"Resized to {resize} ({transform.interpolation}, antialiased), {transform.size} x {transform.size} from the centre, "
        f"scaled to 0..1, mean {list(transform.mean)}, std {list(transform.std)}."
    )
    write_card(
        folder, kind="Image classifier", pipeline_tag="image-classification", task=task, scores=scores, trained_on=trained_on,
        use=USE, pictures=pictures, shown=SHOWN,
    )  # fmt: skip
