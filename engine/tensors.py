"""Named tensors: copied to host memory, written to a file, read back."""

from safetensors.torch import load_file, save_file


def host_copies(tensors):
    """{name: CPU tensor} with memory of its own; names that share a tensor share the copy. The device is waited for."""
    copies, found = {}, {}
    for name, tensor in tensors.items():
        key = (tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tensor.shape, tensor.stride()) if tensor.numel() else name
        if key not in copies:
            copies[key] = tensor.detach().to("cpu", copy=True).contiguous()
        found[name] = copies[key]
    return found


def save_tensors(path, tensors):
    """Write one safetensors file; tensors must not share memory. channels_last moments are made contiguous."""
    save_file({name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}, path)


def load_tensors(path):
    """{name: CPU tensor}."""
    return load_file(path)
