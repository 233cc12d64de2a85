"""The text of an instance segmenter's model card."""

from visionloop.tasks.segmentation.export import CardText

CODE = """\
import torch
from PIL import Image, ImageOps
from torch.nn.functional import interpolate
from transformers import AutoImageProcessor, AutoModelForUniversalSegmentation

processor = AutoImageProcessor.from_pretrained("THIS FOLDER")
model = AutoModelForUniversalSegmentation.from_pretrained("THIS FOLDER").eval()
image = ImageOps.exif_transpose(Image.open("image.jpg")).convert("RGB")
inputs = processor(image, return_tensors="pt")
with torch.no_grad():
    outputs = model(inputs["pixel_values"])
side, (width, height) = inputs["pixel_values"].shape[-1], image.size
factor = side / max(width, height)
scores = outputs.class_queries_logits[0].softmax(-1)[:, :-1]  # [queries, classes]
values, pairs = scores.flatten().topk(min(100, scores.numel()))
masks = interpolate(outputs.masks_queries_logits, size=(side, side), mode="bilinear")
rows, columns = max(1, round(height * factor)), max(1, round(width * factor))
masks = masks[:, pairs // scores.shape[1], :rows, :columns]
masks = interpolate(masks, size=(height, width), mode="bilinear")[0]  # [instances, height, width]
inside = masks > 0
values = values * (masks.sigmoid() * inside).sum((1, 2)) / inside.sum((1, 2)).clamp(min=1)
for i in (values > 0.5).nonzero().flatten().tolist():
    name = model.config.id2label[(pairs[i] % scores.shape[1]).item()]
    print(name, round(values[i].item(), 3), inside[i].sum().item(), "pixels")
"""


def card_text(size: int) -> CardText:
    """Return the text of the card. size: side of the network's input in pixels."""
    images = (
        f"The longer side is resized to {size} px (bilinear, antialiased), and the rest of "
        f"{size} x {size} is black. `post_process_instance_segmentation` of transformers 5.23.0 "
        "keeps one class for each query and paints overlapping masks over each other; the code "
        "above keeps both, as the scores of this card do."
    )
    return CardText(kind="Instance segmenter", code=CODE, images=images)
