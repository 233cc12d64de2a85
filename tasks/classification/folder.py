"""The Hugging Face folder of a classifier: written from tensors, read back bit for bit."""

from visionloop.tasks.classification.model import load_model
from visionloop.tasks.library import quiet_library


def save_folder(module, tensors, folder, transform):
    """Write config.json, model.safetensors and preprocessor_config.json.

    tensors: {name in memory: tensor}; the library writes them under the names that its older versions know too.
    """
    weights = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    with quiet_library():
        module.save_pretrained(folder, state_dict=weights)
    transform.write(folder)


def load_folder(module, folder):
    """Copy the weights of a folder that `save_folder` wrote into `module`."""
    module.load_state_dict(load_model(folder).state_dict())
