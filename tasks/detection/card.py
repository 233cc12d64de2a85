"""What the model card says of a detector."""

from visionloop.tasks.card import write_card

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
picture = Image.open("picture.jpg").convert("RGB")
with torch.no_grad():
    outputs = model(**processor(picture, return_tensors="pt"))
found = processor.post_process_object_detection(outputs, target_sizes=[picture.size[::-1]], threshold=0.5)[0]
for score, label, box in zip(found["scores"], found["labels"], found["boxes"]):
    print(model.config.id2label[label.item()], round(score.item(), 3), [round(v) for v in box.tolist()])
"""


def write_detector_card(folder, task, scores, trained_on):
    """README.md in `folder`. scores: {metric key: value}; trained_on: (training, validation) numbers of pictures, or None if unknown."""
    size = task.image_size
    pictures = f"Resized to {size} x {size} whatever their shape (bilinear, antialiased), scaled to 0..1, no mean, no deviation."
    write_card(
        folder, kind="Object detector", pipeline_tag="object-detection", task=task, scores=scores, trained_on=trained_on,
        use=USE, pictures=pictures, shown=SHOWN,
    )  # fmt: skip
