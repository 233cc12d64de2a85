"""What the model card says of a network for super-resolution or restoration."""

import json
from pathlib import Path

from visionloop.tasks.card import write_card

SHOWN = ("mode", "scale", "patch_size", "flips", "noise", "quality", "loss", "weight_aux", "weight_frequency", "official_heads")
USE = """\
import torch
from PIL import Image
from transformers import AutoImageProcessor, Swin2SRForImageSuperResolution

processor = AutoImageProcessor.from_pretrained("THIS FOLDER")
model = Swin2SRForImageSuperResolution.from_pretrained("THIS FOLDER").eval()
picture = Image.open("picture.png").convert("RGB")
inputs = processor(picture, return_tensors="pt")
with torch.no_grad():
    result = model(**inputs).reconstruction[0]
width, height = (side * {scale} for side in picture.size)
result = result[:, :height, :width].clamp(0, 1) * 255  # without what the processor padded
Image.fromarray(result.round().byte().permute(1, 2, 0).numpy()).save("result.png")
"""
PICTURES = """\
RGB, bytes divided by 255, nothing subtracted: the model does that itself. Sides are padded at the bottom and the right to multiples of \
{window}, and the result is cropped. Our scores were taken with as few mirrored pixels as that takes; the processor of this folder always \
adds 1 to {window} pixels, which changes the last rows and columns and next to nothing in the scores.
"""
HEADS = """
Plain transformers adds {difference}, unlike the authors' network. The weights here are corrected so that it gives what was trained{but}; \
`visionloop_heads` in config.json says so.
"""
CORRECTIONS = {
    "": HEADS.format(difference="the mean colour to the input once more", but=""),
    "pixelshuffle_aux": HEADS.format(difference="the bicubic picture of raw pixels", but=", but for the outer 2 pixels of a picture"),
}
KINDS = {"denoise": "Denoiser", "jpeg": "JPEG artifact remover"}
PURPOSES = {
    "real-world": "Enlarges photographs with unknown blur, noise and compression",
    "compressed": "Enlarges pictures that were made smaller with a bicubic filter and stored as JPEG",
    "denoise": "Takes Gaussian noise away",
    "jpeg": "Takes the traces of JPEG compression away",
}
BICUBIC = "Enlarges pictures that were made smaller with a bicubic filter"


def write_super_resolver_card(folder, task, scores, trained_on):
    """README.md in `folder`, beside its config.json, which knows the scale, the window and which heads the weights are for.

    scores: {metric key: value}; trained_on: (training, validation) numbers of pictures, None if unknown.
    """
    config, mode = json.loads((Path(folder) / "config.json").read_text()), task.config.mode
    scale = config["upscale"]
    size = f"{scale} times as wide and as high" if scale > 1 else "of the same size"
    pictures = PICTURES.format(window=config["window_size"])
    if config.get("visionloop_heads") == "plain":
        pictures += CORRECTIONS[config["upsampler"]]
    write_card(
        folder, kind=KINDS.get(mode, f"Super-resolution x{scale}"), pipeline_tag="image-to-image", task=task, scores=scores,
        trained_on=trained_on, use=USE.replace("{scale}", str(scale)), pictures=pictures.rstrip(), shown=SHOWN,
        purpose=f"{PURPOSES.get(mode, BICUBIC)}; the result is {size}.",
    )  # fmt: skip
