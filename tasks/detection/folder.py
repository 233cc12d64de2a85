"""The Hugging Face folder of a detector: written from tensors, read back bit for bit."""

from visionloop.tasks.detection.model import load_model
from visionloop.tasks.detection.processor import write_processor
from visionloop.tasks.library import quiet_library


def save_folder(module, tensors, folder, size):
    """Write config.json, model.safetensors and preprocessor_config.json. tensors: {name in memory: tensor}, tied ones share their memory.

    The class and box heads stand in the module twice, tied; the library writes them once.
    """
    kept = {}
    weights = {name: kept.setdefault(tensor.data_ptr(), tensor.detach().to("cpu").contiguous()) for name, tensor in tensors.items()}
    with quiet_library():
        module.save_pretrained(folder, state_dict=weights)
    write_processor(folder, size)


def load_folder(module, folder):
    """Copy the weights of a folder that `save_folder` wrote into `module`."""
    frozen = module.config.freeze_backbone_batch_norms
    module.load_state_dict(load_model(folder, "frozen" if frozen else "trained").state_dict())
