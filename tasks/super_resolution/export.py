"""A super-resolution network as ONNX reads it."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from visionloop.tasks.huggingface.model_card import write_card
from visionloop.tasks.huggingface.onnx import export_onnx
from visionloop.tasks.super_resolution.model import copy_of, load_model
from visionloop.tasks.super_resolution.weight_conversion import correct, mark


class ImageOutput(nn.Module):
    """pixel_values -> (image,), without the auxiliary one."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, pixel_values):
        return (self.module(pixel_values)["sr"],)


def export_super_resolver(module, folder, size):
    """Write model.onnx: tiles [B, 3, size, size] in 0..1 to images [B, 3, s*size, s*size]. Returns lines that say what was done."""
    trial = torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    return export_onnx(ImageOutput(module), trial, folder, ["reconstruction"])


# What the model card says of a network for super-resolution or restoration.

SHOWN = (
    "mode",
    "scale",
    "patch_size",
    "flips",
    "noise",
    "quality",
    "loss",
    "weight_aux",
    "weight_frequency",
    "official_heads",
)
USE = """\
import torch
from PIL import Image
from transformers import AutoImageProcessor, Swin2SRForImageSuperResolution

processor = AutoImageProcessor.from_pretrained("THIS FOLDER")
model = Swin2SRForImageSuperResolution.from_pretrained("THIS FOLDER").eval()
image = Image.open("image.png").convert("RGB")
inputs = processor(image, return_tensors="pt")
with torch.no_grad():
    result = model(**inputs).reconstruction[0]
width, height = (side * {scale} for side in image.size)
result = result[:, :height, :width].clamp(0, 1) * 255  # without what the processor padded
Image.fromarray(result.round().byte().permute(1, 2, 0).numpy()).save("result.png")
"""
IMAGES = """\
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
    "pixelshuffle_aux": HEADS.format(
        difference="the bicubic image of raw pixels",
        but=", but for the outer 2 pixels of an image",
    ),
}
KINDS = {"denoise": "Denoiser", "jpeg": "JPEG artifact remover"}
PURPOSES = {
    "real-world": "Enlarges photographs with unknown blur, noise and compression",
    "compressed": "Enlarges images that were made smaller with a bicubic filter and stored as JPEG",
    "denoise": "Takes Gaussian noise away",
    "jpeg": "Takes the traces of JPEG compression away",
}
BICUBIC = "Enlarges images that were made smaller with a bicubic filter"


def write_super_resolver_card(folder, task, scores, trained_on):
    """README.md in `folder`, beside its config.json, which knows the scale, the window and which heads the weights are for.

    scores: {metric key: value}; trained_on: (training, validation) numbers of images, None if
    unknown.
    """
    config, mode = json.loads((Path(folder) / "config.json").read_text()), task.config.mode
    scale = config["upscale"]
    size = f"{scale} times as wide and as high" if scale > 1 else "of the same size"
    images = IMAGES.format(window=config["window_size"])
    if config.get("visionloop_heads") == "plain":
        images += CORRECTIONS[config["upsampler"]]
    write_card(
        folder, kind=KINDS.get(mode, f"Super-resolution x{scale}"), pipeline_tag="image-to-image", task=task, scores=scores,
        trained_on=trained_on, use=USE.replace("{scale}", str(scale)), images=images.rstrip(), shown=SHOWN,
        purpose=f"{PURPOSES.get(mode, BICUBIC)}; the result is {size}.",
    )  # fmt: skip


# The Hugging Face folder of a Swin2SR: training weights, read back bit for bit, or weights for
# plain transformers.

WEIGHTS, PROCESSOR = "model.safetensors", "preprocessor_config.json"


def save_folder(module, tensors, folder):
    """Write config.json, model.safetensors and preprocessor_config.json as they train. tensors: {name in memory: tensor}.

    Plain transformers reads them too, but computes something else with the x1 and the auxiliary
    head.
    """
    config = copy_of(module.config)
    mark(config, official=module.official_heads)
    _write(module, config, tensors, folder)


def save_plain_folder(module, tensors, folder):
    """Like `save_folder`, with weights that make plain transformers compute what `module` does. Returns lines that say what was changed.

    `load_model` reads such a folder as it is, with the library's heads; `build_model` turns its
    weights back before it trains on.
    """
    config, lines = copy_of(module.config), []
    if module.official_heads:
        config, tensors, lines = correct(config, dict(tensors))
    else:
        mark(config, official=False)
    _write(module, config, tensors, folder)
    return lines


def make_plain(module):
    """Correct a network in place, so that plain transformers computes the same with its weights. Returns lines that say what changed."""
    if not module.official_heads:
        return []
    config, weights, lines = correct(copy_of(module.config), module.state_dict())
    if lines:
        module.load_state_dict(weights)
        module.config, module.swin2sr.img_range, module.official_heads = (
            config,
            config.img_range,
            False,
        )
    return lines


def load_folder(module, folder):
    """Copy the weights of a folder that `save_folder` wrote into `module`, and whose heads they are for."""
    stored = load_model(folder)
    module.load_state_dict(stored.state_dict())
    module.official_heads = stored.official_heads


def _write(module, config, tensors, folder):
    """The three files. The library's processor adds a whole window where nothing is missing, and mirrors the edge too; we do not use it."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config.architectures = [type(module).__name__]
    config.save_pretrained(folder)
    weights = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    content = {
        "image_processor_type": "Swin2SRImageProcessor",
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_pad": True,
        "size_divisor": config.window_size,
    }
    (folder / PROCESSOR).write_text(json.dumps(content, indent=2) + "\n")
