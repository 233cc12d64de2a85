"""The text of a panoptic segmenter's model card."""

from collections.abc import Sequence

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
    outputs = model(inputs["pixel_values"])
stuff = [i for i, is_thing in enumerate(model.config.is_thing) if not is_thing]
result = processor.post_process_panoptic_segmentation(
    outputs, target_sizes=[image.size[::-1]], threshold=0.8, stuff_classes=stuff
)[0]
for segment in result["segments_info"]:
    pixels = (result["segmentation"] == segment["id"]).sum().item()
    print(model.config.id2label[segment["label_id"]], round(segment["score"], 3), pixels, "pixels")
"""


def card_text(size: int, classes: Sequence[str], is_thing: Sequence[bool]) -> CardText:
    """Return the text of the card.

    Args:
        size: side of the network's input in pixels.
        classes: names in order of id.
        is_thing: of each class.
    """
    things = sum(is_thing)
    images = (
        f"The longer side is resized to {size} px (bilinear, antialiased), and the rest of "
        f"{size} x {size} is black. {things} of the {len(classes)} classes are things, the others "
        "stuff: `is_thing` in config.json, in order of id. Without `stuff_classes` transformers "
        "5.23.0 does not merge the segments of a stuff class, and for some image sizes it cuts the "
        "padding one pixel away from where it is."
    )
    return CardText(kind="Panoptic segmenter", code=CODE, images=images)
