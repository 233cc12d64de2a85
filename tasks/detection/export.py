"""Export of a detector: the Hugging Face folder, its image processor, model card and ONNX."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers.models.d_fine import modeling_d_fine

from visionloop.engine.errors import UserError
from visionloop.tasks.detection.model import load_model
from visionloop.tasks.huggingface.loading import quiet_transformers
from visionloop.tasks.huggingface.model_card import write_card
from visionloop.tasks.huggingface.onnx import export_onnx

if TYPE_CHECKING:
    from visionloop.engine.types import Scores
    from visionloop.tasks.detection.network import DFineForObjectDetection
    from visionloop.tasks.detection.task import DetectionTask

PROCESSOR_FILE = "preprocessor_config.json"
DEFAULT_SIZE = 640

# settings that the model card lists
CARD_SETTINGS = (
    "backbone_lr_scale",
    "backbone_bn",
    "denoising",
    "photometric",
    "zoom_out",
    "iou_crop",
    "hflip",
    "multi_scale",
    "strong_share",
    "freeze",
)
USAGE = """\
import torch
from PIL import Image, ImageOps
from transformers import AutoImageProcessor, DFineForObjectDetection

processor = AutoImageProcessor.from_pretrained("THIS FOLDER")
model = DFineForObjectDetection.from_pretrained("THIS FOLDER").eval()
image = ImageOps.exif_transpose(Image.open("image.jpg")).convert("RGB")
with torch.no_grad():
    outputs = model(**processor(image, return_tensors="pt"))
detections = processor.post_process_object_detection(
    outputs, target_sizes=[image.size[::-1]], threshold=0.5
)[0]
for score, label, box in zip(detections["scores"], detections["labels"], detections["boxes"]):
    name = model.config.id2label[label.item()]
    print(name, round(score.item(), 3), [round(v) for v in box.tolist()])
"""


def save_folder(
    module: DFineForObjectDetection,
    tensors: Mapping[str, torch.Tensor],
    folder: str | Path,
    size: int,
) -> None:
    """Write config.json, model.safetensors and preprocessor_config.json.

    Args:
        module: the model, for its config.
        tensors: {name in the model: tensor}; tied weights share their memory. The class and box
            heads are in the model twice, tied; transformers writes them once.
        folder: takes the files.
        size: side in pixels of the images that the model reads.
    """
    copies: dict[int, torch.Tensor] = {}
    weights = {
        name: copies.setdefault(tensor.data_ptr(), tensor.detach().to("cpu").contiguous())
        for name, tensor in tensors.items()
    }
    with quiet_transformers():
        module.save_pretrained(folder, state_dict=weights)
    write_processor(folder, size)


def load_folder(module: DFineForObjectDetection, folder: str | Path) -> None:
    """Load the weights of a folder of `save_folder` into `module`, bit for bit."""
    backbone_bn = "frozen" if module.config.freeze_backbone_batch_norms else "trained"
    module.load_state_dict(load_model(folder, backbone_bn).state_dict())


def write_processor(folder: str | Path, size: int) -> None:
    """Write preprocessor_config.json: a resize to size x size and values in 0..1."""
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
    (Path(folder) / PROCESSOR_FILE).write_text(json.dumps(content, indent=2) + "\n")


def read_size(folder: str | Path) -> int:
    """Read the side in pixels of the images that the model of a folder reads.

    It is 640 where the folder has no preprocessor_config.json. Raises UserError for a processor
    that does anything but resize to a square and scale to 0..1.
    """
    path = Path(folder) / PROCESSOR_FILE
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
            f"{path}: the image processor is not supported ({error})", file=str(path)
        ) from None


def write_model_card(
    folder: str | Path, task: DetectionTask, scores: Scores, trained_on: Sequence[int] | None
) -> None:
    """Write README.md, the model card of a detector.

    Args:
        folder: takes the card.
        task: of the model.
        scores: {metric key: value}.
        trained_on: (training images, validation images), None if unknown.
    """
    size = task.image_size
    images = (
        f"Resized to {size} x {size} whatever their shape (bilinear, antialiased), "
        "scaled to 0..1, no mean, no deviation."
    )
    write_card(
        folder,
        kind="Object detector",
        pipeline_tag="object-detection",
        task=task,
        scores=scores,
        trained_on=trained_on,
        use=USAGE,
        images=images,
        settings=CARD_SETTINGS,
        classes=task.classes,
    )


class LastLayerOutput(nn.Module):
    """Return (logits [B, Q, C], boxes [B, Q, 4] cxcywh in 0..1) of the last decoder layer."""

    def __init__(self, module: DFineForObjectDetection) -> None:
        super().__init__()
        self.module = module

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the outputs for images [B, 3, S, S]."""
        outputs = self.module(pixel_values)
        return outputs.intermediate_logits[:, -1], outputs.intermediate_reference_points[:, -1]


def export_detector(module: DFineForObjectDetection, folder: str | Path, size: int) -> list[str]:
    """Write model.onnx: pixel_values [1, 3, size, size] in 0..1 to logits and boxes.

    The file takes one image at a time: the forward of transformers reads the batch size with
    `len`, which fixes it in the exported graph.

    Returns:
        Lines about the check of the file.
    """
    images = torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    with without_level_check():
        return export_onnx(
            LastLayerOutput(module),
            images,
            folder,
            ["logits", "boxes"],
            any_batch=False,
            align=align_queries,
        )


@contextmanager
def without_level_check() -> Iterator[None]:
    """Turn off the check of transformers that feature levels fill their sequence.

    It has no counterpart in ONNX.
    """
    check = modeling_d_fine.torch_compilable_check
    modeling_d_fine.torch_compilable_check = lambda *_: None
    try:
        yield
    finally:
        modeling_d_fine.torch_compilable_check = check


def align_queries(
    onnx_outputs: Sequence[torch.Tensor], torch_outputs: Sequence[torch.Tensor]
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Reorder the outputs of onnxruntime and PyTorch so that each query is paired with the nearest.

    Queries are sorted by the scores of their proposals: rounding swaps neighbors, and the last
    proposal may be another one whose score differs by rounding only. Therefore the twentieth of the
    queries with the largest distance is left out.
    """
    torch_rows, onnx_rows = (
        torch.cat([*outputs], dim=-1)[0] for outputs in (torch_outputs, onnx_outputs)
    )
    # [Q, Q] of rows [Q, C + 4]; the faster way, by matrix multiplication, is off by 1e-3
    distances = torch.cdist(torch_rows, onnx_rows, compute_mode="donot_use_mm_for_euclid_dist")
    distance, nearest = distances.min(dim=1)
    closest = distance.argsort()[: len(distance) - len(distance) // 20]
    return (
        [tensor[:, nearest[closest]] for tensor in onnx_outputs],
        [tensor[:, closest] for tensor in torch_outputs],
    )
