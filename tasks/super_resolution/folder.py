"""The Hugging Face folder of a Swin2SR: training weights, read back bit for bit, or weights for plain transformers."""

import json
from pathlib import Path

from safetensors.torch import save_file

from visionloop.tasks.super_resolution.correction import correct, mark
from visionloop.tasks.super_resolution.model import copy_of, load_model

WEIGHTS, PROCESSOR = "model.safetensors", "preprocessor_config.json"


def save_folder(module, tensors, folder):
    """Write config.json, model.safetensors and preprocessor_config.json as they train. tensors: {name in memory: tensor}.

    Plain transformers reads them too, but computes something else with the x1 and the auxiliary head.
    """
    config = copy_of(module.config)
    mark(config, official=module.official_heads)
    _write(module, config, tensors, folder)


def save_plain_folder(module, tensors, folder):
    """Like `save_folder`, with weights that make plain transformers compute what `module` does. Returns lines that say what was changed.

    `load_model` reads such a folder as it is, with the library's heads; `build_model` turns its weights back before it trains on.
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
        module.config, module.swin2sr.img_range, module.official_heads = config, config.img_range, False
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
