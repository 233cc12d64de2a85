"""The text of a semantic segmenter's model card."""

from visionloop.tasks.segmentation.export import CardText

CODE = """\
import torch
from PIL import Image, ImageOps
from transformers import AutoImageProcessor, AutoModelForUniversalSegmentation

processor = AutoImageProcessor.from_pretrained("THIS FOLDER")
model = AutoModelForUniversalSegmentation.from_pretrained("THIS FOLDER").eval()
image = ImageOps.exif_transpose(Image.open("image.jpg")).convert("RGB")
inputs = processor(image, return_tensors="pt")
with torch.no_grad():
    outputs = model(inputs["pixel_values"], patch_offsets=inputs["patch_offsets"])
size = image.size[::-1]
ids = processor.post_process_semantic_segmentation(outputs, target_sizes=[size])[0]  # [height, width]
for i in ids.unique().tolist():
    print(model.config.id2label[i], round((ids == i).float().mean().item(), 3))
"""  # noqa: E501  read in a card, whose lines may be longer


def card_text(size: int) -> CardText:
    """Return the text of the card. size: side of the windows in pixels."""
    images = (
        f"The shorter side is resized to {size} px (bilinear, antialiased), overlapping windows of "
        f"{size} x {size} along the longer side go through the network, and their scores are "
        "averaged, resized to the image and compared."
    )
    return CardText(kind="Semantic segmenter", code=CODE, images=images)
