"""What the model card says of a segmenter."""

from visionloop.tasks.card import write_card

SHOWN = (
    "layer_decay", "mask_annealing", "backbone_rest", "backbone_warmup", "points", "share_candidates", "mask_ignore", "no_object_weight",
    "color", "scale_min", "scale_max", "hflip", "freeze",
)  # fmt: skip
USE = """\
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForUniversalSegmentation

processor = AutoImageProcessor.from_pretrained("THIS FOLDER")
model = AutoModelForUniversalSegmentation.from_pretrained("THIS FOLDER").eval()
picture = Image.open("picture.jpg").convert("RGB")
inputs = processor(picture, return_tensors="pt")
with torch.no_grad():
    outputs = model(inputs["pixel_values"], patch_offsets=inputs["patch_offsets"])
size = picture.size[::-1]
ids = processor.post_process_semantic_segmentation(outputs, target_sizes=[size])[0]  # [height, width]
for i in ids.unique().tolist():
    print(model.config.id2label[i], round((ids == i).float().mean().item(), 3))
"""


def write_segmenter_card(folder, task, scores, trained_on):
    """README.md in `folder`. scores: {metric key: value}; trained_on: (training, validation) numbers of pictures, or None if unknown."""
    size = task.image_size
    pictures = (
        f"The shorter side is resized to {size} px (bilinear, antialiased), overlapping windows of {size} x {size} along the longer side "
        "go through the network, and their scores are averaged, resized to the picture and compared."
    )
    write_card(
        folder, kind="Semantic segmenter", pipeline_tag="image-segmentation", task=task, scores=scores, trained_on=trained_on,
        use=USE, pictures=pictures, shown=SHOWN,
    )  # fmt: skip
