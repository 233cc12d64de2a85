"""A whole checkpoint, or its weights, from the shards of a sharded one, written tensor by tensor.

Memory is bounded by the largest tensor, not by the model.
"""

from __future__ import annotations

import json
import shutil
from collections import ChainMap
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from visionloop.engine.checkpoints.files import write_json
from visionloop.engine.checkpoints.folder import write_folder
from visionloop.engine.checkpoints.manifest import read_manifest
from visionloop.engine.checkpoints.stored_tensors import SHARD_FILE, StoredTensors, is_sharded
from visionloop.engine.checkpoints.writer import load_tensors
from visionloop.engine.types import JsonObject

# as transformers names and splits them
WEIGHTS_FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
EXTRA = "extra.safetensors"  # of a sharded checkpoint: what `Task.save` adds to the weights
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


def consolidate(source: Path, target: Path) -> None:
    """Write a sharded checkpoint as a whole one, as a run that is not sharded writes it.

    The weights go into model.safetensors, or into several files with an index above 5 GB, as
    transformers reads them; moments and EMA into one file each, which only training reads. Weights
    have their names in the module, a tied one its first.

    Args:
        source: a valid sharded checkpoint.
        target: the new folder, which appears when it is complete.

    Raises:
        ValueError: a shard cannot be understood.
        OSError: a file cannot be read or written.
    """
    manifest = read_manifest(source)
    assert manifest is not None, "the checkpoint is valid"
    others = [name for name in manifest["files"] if not SHARD_FILE.fullmatch(name)]

    def fill(folder: Path) -> None:
        for name in others:
            if name != EXTRA:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / name, folder / name)
        extra = load_tensors(source / EXTRA) if EXTRA in others else {}
        with StoredTensors(source, "weights") as weights:
            write_weights(folder, ChainMap(extra, weights))  # type: ignore[arg-type]  # only read
        for kind in ("optimizer", "ema"):
            if is_sharded(source, kind):
                with StoredTensors(source, kind) as stored:
                    write_streamed(folder / f"{kind}.safetensors", stored, sorted(stored))

    write_folder(target, fill)


def write_weights(
    folder: Path, tensors: Mapping[str, torch.Tensor], *, largest_file: int = LARGEST_FILE
) -> None:
    """Write model.safetensors, or several files with an index above `largest_file` bytes.

    Args:
        folder: an existing folder.
        tensors: {name: tensor}; each is asked for twice, and dropped before the next.
        largest_file: most bytes of a file that holds more than one tensor.
    """
    sizes = {name: tensors[name].nbytes for name in sorted(tensors)}
    groups = split_by_size(sizes, largest_file)
    if len(groups) == 1:
        write_streamed(folder / WEIGHTS_FILE, tensors, groups[0])
        return
    weight_map: dict[str, str] = {}
    for i, names in enumerate(groups):
        file = f"model-{i + 1:05d}-of-{len(groups):05d}.safetensors"
        write_streamed(folder / file, tensors, names)
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


def write_streamed(path: Path, tensors: Mapping[str, torch.Tensor], names: Sequence[str]) -> None:
    """Write a safetensors file of some tensors, one after the other.

    The file starts with the length of its header (8 bytes), then the header, JSON with the place of
    each tensor, padded to 8 bytes.
    """
    header: JsonObject = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in names:
        tensor = tensors[name]
        header[name] = {
            "dtype": DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [end, end + tensor.nbytes],
        }
        end += tensor.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in names:
            tensor = tensors[name].contiguous().flatten()
            if tensor.numel():
                file.write(tensor.view(torch.uint8).numpy().data)
