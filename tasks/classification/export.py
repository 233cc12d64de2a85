"""A classifier as ONNX reads it."""

import torch
from torch import nn

from visionloop.tasks.classification.model import load_model
from visionloop.tasks.huggingface.loading import quiet_transformers
from visionloop.tasks.huggingface.model_card import write_card
from visionloop.tasks.huggingface.onnx import export_onnx


class LogitsOutput(nn.Module):
    """pixel_values -> (logits,), tensors instead of the library's output object."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, pixel_values):
        return (self.module(pixel_values=pixel_values).logits,)


def export_classifier(module, folder, size):
    """Write model.onnx: pixel_values [batch, 3, size, size], normalised, to logits. Returns lines that say what was done."""
    trial = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    return export_onnx(LogitsOutput(module), trial, folder, ["logits"])


# What the model card says of a classifier.

SHOWN = (
    "init", "label_smoothing", "class_weights", "mixup", "cutmix", "crop_scale_min", "hflip", "rand_augment_ops",
    "rand_augment_magnitude", "random_erasing", "drop_path", "layer_decay", "freeze",
)  # fmt: skip
USE = """\
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

processor = AutoImageProcessor.from_pretrained("THIS FOLDER")
model = AutoModelForImageClassification.from_pretrained("THIS FOLDER")
logits = model(**processor(Image.open("image.jpg").convert("RGB"), return_tensors="pt")).logits
print(model.config.id2label[logits.argmax().item()])
"""


def write_classifier_card(folder, task, scores, trained_on):
    """README.md in `folder`. scores: {metric key: value}; trained_on: (training, validation) numbers of images, or None if unknown."""
    transform = task.eval_transform
    resize = (
        transform.resize
        if isinstance(transform.resize, tuple)
        else f"shorter side {transform.resize}"
    )
    images = (
        f"Resized to {resize} ({transform.interpolation}, antialiased), {transform.size} x {transform.size} from the centre, "
        f"scaled to 0..1, mean {list(transform.mean)}, std {list(transform.std)}."
    )
    write_card(
        folder, kind="Image classifier", pipeline_tag="image-classification", task=task, scores=scores, trained_on=trained_on,
        use=USE, images=images, shown=SHOWN,
    )  # fmt: skip


# The Hugging Face folder of a classifier: written from tensors, read back bit for bit.


def save_folder(module, tensors, folder, transform):
    """Write config.json, model.safetensors and preprocessor_config.json.

    tensors: {name in memory: tensor}; the library writes them under the names that its older
    versions know too.
    """
    weights = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    with quiet_transformers():
        module.save_pretrained(folder, state_dict=weights)
    transform.write(folder)


def load_folder(module, folder):
    """Copy the weights of a folder that `save_folder` wrote into `module`."""
    module.load_state_dict(load_model(folder).state_dict())
