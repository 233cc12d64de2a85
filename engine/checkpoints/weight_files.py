"""Safetensors files of a whole model, written tensor by tensor and split as transformers does it.

Memory is bounded by the largest tensor, not by the model; the writer of safetensors itself needs a
contiguous copy of all tensors at once.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from visionloop.engine.checkpoints.files import write_json
from visionloop.engine.types import JsonObject

# as transformers names and splits them
WEIGHTS_FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
LARGEST_FILE = 5 * 10**9  # bytes
# names of safetensors (its format description)
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True)
class Layout:
    """Dtype, shape and bytes of a tensor in the header of a file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    nbytes: int


def layouts_of(tensors: Mapping[str, torch.Tensor]) -> dict[str, Layout]:
    """Return the layouts of tensors in the order of their names; each is asked for once."""
    layouts = {}
    for name in sorted(tensors):
        tensor = tensors[name]
        layouts[name] = Layout(tensor.dtype, tuple(tensor.shape), tensor.nbytes)
    return layouts


def write_weights(
    folder: Path, tensors: Mapping[str, torch.Tensor], *, largest_file: int = LARGEST_FILE
) -> None:
    """Write model.safetensors, or several files with an index above `largest_file` bytes.

    Args:
        folder: an existing folder.
        tensors: {name: tensor}; each is asked for twice, and dropped before the next.
        largest_file: most bytes of a file that holds more than one tensor.
    """
    layouts = layouts_of(tensors)
    sizes = {name: layout.nbytes for name, layout in layouts.items()}
    groups = split_by_size(sizes, largest_file)
    if len(groups) == 1:
        write_streamed(folder / WEIGHTS_FILE, tensors, layouts)
        return
    weight_map: dict[str, str] = {}
    for i, names in enumerate(groups):
        file = f"model-{i + 1:05d}-of-{len(groups):05d}.safetensors"
        write_streamed(folder / file, tensors, {name: layouts[name] for name in names})
        weight_map |= dict.fromkeys(names, file)
    index: JsonObject = {
        "metadata": {"total_size": sum(sizes.values())},
        "weight_map": weight_map,
    }
    write_json(folder / INDEX, index)


def split_by_size(sizes: Mapping[str, int], most: int) -> list[list[str]]:
    """Divide names into groups of consecutive ones, each of at most `most` bytes or of one name."""
    groups: list[list[str]] = [[]]
    used = 0
    for name, size in sizes.items():
        if groups[-1] and used + size > most:
            groups.append([])
            used = 0
        groups[-1].append(name)
        used += size
    return groups


def write_streamed(
    path: Path, tensors: Mapping[str, torch.Tensor], layouts: Mapping[str, Layout]
) -> None:
    """Write a safetensors file, one tensor after the other.

    The file starts with the length of its header (8 bytes), then the header, JSON with the place of
    each tensor, padded to 8 bytes.

    Args:
        path: of the file.
        tensors: {name: tensor}, of which those in `layouts` are asked for once.
        layouts: of the tensors that are written, in this order.
    """
    header: JsonObject = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, layout in layouts.items():
        header[name] = {
            "dtype": DTYPES[layout.dtype],
            "shape": list(layout.shape),
            "data_offsets": [end, end + layout.nbytes],
        }
        end += layout.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in layouts:
            tensor = tensors[name].contiguous().flatten()
            if tensor.numel():
                file.write(tensor.view(torch.uint8).numpy().data)
