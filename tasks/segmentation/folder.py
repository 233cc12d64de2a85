"""The Hugging Face folder of an EoMT: written from tensors, read back bit for bit."""

import torch

from visionloop.tasks.library import quiet_library
from visionloop.tasks.segmentation.model import load_model
from visionloop.tasks.segmentation.processor import write_processor


def save_folder(module, tensors, folder, size, mean, std):
    """Write config.json, model.safetensors and preprocessor_config.json. tensors: {name in memory: tensor}.

    How much each joint block masks at this moment stands in the module as numbers, and in the folder as the library's buffer.
    """
    weights = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    weights["attn_mask_probs"] = torch.tensor(module.mask_probs)
    with quiet_library():
        module.save_pretrained(folder, state_dict=weights)
    write_processor(folder, size, mean, std)


def load_folder(module, folder):
    """Copy the weights of a folder that `save_folder` wrote into `module`."""
    stored = load_model(folder)
    module.load_state_dict(stored.state_dict())
    module.mask_probs = stored.mask_probs
