"""A detector as ONNX reads it."""

import json
from pathlib import Path
from unittest.mock import patch

import torch
from torch import nn
from transformers.models.d_fine import modeling_d_fine

from visionloop.engine.errors import UserError
from visionloop.tasks.detection.model import load_model
from visionloop.tasks.huggingface.loading import quiet_transformers
from visionloop.tasks.huggingface.model_card import write_card
from visionloop.tasks.huggingface.onnx import export_onnx


class LastLayer(nn.Module):
    """pixel_values -> (logits [B, Q, C], boxes [B, Q, 4] cxcywh in 0..1) of the last layer."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, pixel_values):
        outputs = self.module(pixel_values)
        return outputs.intermediate_logits[:, -1], outputs.intermediate_reference_points[:, -1]


def export_detector(module, folder, size):
    """Write model.onnx: pixel_values [1, 3, size, size] in 0..1 to logits and boxes. Returns lines that say what was done.

    One image at a time: the library's forward reads the batch size with `len`, which fixes it in
    the exported graph.
    """
    trial = torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    # the library's check that its levels fill its sequence has no form in ONNX
    with patch.object(modeling_d_fine, "torch_compilable_check", lambda *_: None):
        return export_onnx(
            LastLayer(module),
            trial,
            folder,
            ["logits", "boxes"],
            any_batch=False,
            align=align_queries,
        )


def align_queries(theirs, ours):
    """(theirs, ours): each of our queries beside the nearest of `theirs`, the twentieth that agrees least left out.

    Queries stand in the order of the proposals' scores: rounding swaps neighbours, and at the end
    of the list one proposal may give way to another whose score is the same but for rounding.
    """
    rows = [torch.cat([*answer], dim=-1)[0] for answer in (ours, theirs)]  # [Q, C + 4] each
    distance = torch.cdist(
        *rows, compute_mode="donot_use_mm_for_euclid_dist"
    )  # [Q, Q]; the quick way is off by 1e-3
    distance, nearest = distance.min(dim=1)
    kept = distance.argsort()[: len(distance) - len(distance) // 20]
    return [tensor[:, nearest[kept]] for tensor in theirs], [tensor[:, kept] for tensor in ours]


# The image's way into the network, as `preprocessor_config.json` says it: a plain resize to a
# square, 0..1, no mean, no deviation.

FILE_NAME = "preprocessor_config.json"
DEFAULT_SIZE = 640


def write_processor(folder, size):
    """preprocessor_config.json for images of size x size."""
    content = {
        "image_processor_type": "RTDetrImageProcessor",
        "do_resize": True,
        "size": {"height": size, "width": size},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": False,
        "do_pad": False,
    }
    (Path(folder) / FILE_NAME).write_text(json.dumps(content, indent=2) + "\n")


def read_size(folder):
    """Side in pixels of the images that a folder's model reads; 640 where it does not say. Raises UserError for what we cannot follow."""
    path = Path(folder) / FILE_NAME
    if not path.exists():
        return DEFAULT_SIZE
    try:
        content = json.loads(path.read_text())
        size = content.get("size", {"height": DEFAULT_SIZE, "width": DEFAULT_SIZE})
        if (
            content.get("do_normalize", False)
            or not content.get("do_rescale", True)
            or size["height"] != size["width"]
        ):
            raise ValueError(
                "expected a resize to a square, scaled to 0..1, without mean and deviation"
            )
        return int(size["height"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: not an image processor that this task can follow ({error})", file=str(path)
        ) from None


# What the model card says of a detector.

SHOWN = (
    "backbone_lr_scale", "backbone_bn", "denoising", "photometric", "zoom_out", "iou_crop", "hflip", "multi_scale", "strong_share",
    "freeze",
)  # fmt: skip
USE = """\
import torch
from PIL import Image
from transformers import AutoImageProcessor, DFineForObjectDetection

processor = AutoImageProcessor.from_pretrained("THIS FOLDER")
model = DFineForObjectDetection.from_pretrained("THIS FOLDER").eval()
image = Image.open("image.jpg").convert("RGB")
with torch.no_grad():
    outputs = model(**processor(image, return_tensors="pt"))
found = processor.post_process_object_detection(outputs, target_sizes=[image.size[::-1]], threshold=0.5)[0]
for score, label, box in zip(found["scores"], found["labels"], found["boxes"]):
    print(model.config.id2label[label.item()], round(score.item(), 3), [round(v) for v in box.tolist()])
"""


def write_detector_card(folder, task, scores, trained_on):
    """README.md in `folder`. scores: {metric key: value}; trained_on: (training, validation) numbers of images, or None if unknown."""
    size = task.image_size
    images = f"Resized to {size} x {size} whatever their shape (bilinear, antialiased), scaled to 0..1, no mean, no deviation."
    write_card(
        folder, kind="Object detector", pipeline_tag="object-detection", task=task, scores=scores, trained_on=trained_on,
        use=USE, images=images, shown=SHOWN,
    )  # fmt: skip


# The Hugging Face folder of a detector: written from tensors, read back bit for bit.


def save_folder(module, tensors, folder, size):
    """Write config.json, model.safetensors and preprocessor_config.json. tensors: {name in memory: tensor}, tied ones share their memory.

    The class and box heads stand in the module twice, tied; the library writes them once.
    """
    kept = {}
    weights = {
        name: kept.setdefault(tensor.data_ptr(), tensor.detach().to("cpu").contiguous())
        for name, tensor in tensors.items()
    }
    with quiet_transformers():
        module.save_pretrained(folder, state_dict=weights)
    write_processor(folder, size)


def load_folder(module, folder):
    """Copy the weights of a folder that `save_folder` wrote into `module`."""
    frozen = module.config.freeze_backbone_batch_norms
    module.load_state_dict(load_model(folder, "frozen" if frozen else "trained").state_dict())
