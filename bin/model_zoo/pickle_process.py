"""The process of `models convert-weights`: the only code of the project that opens a pickle.

`python -m visionloop.bin.model_zoo.pickle_process FOLDER OUTPUT` reads the pytorch_model.bin of
FOLDER with PyTorch's restricted unpickler, which builds tensors and runs nothing, and writes
safetensors into OUTPUT. Contents stay in the mapped file until they are written, tensor by tensor.
"""

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from visionloop.engine.checkpoints.files import fsync, write_json
from visionloop.tasks.segmentation.weight_conversion import to_transformers, uses_authors_names

# of a file, as transformers splits folders
MAX_FILE_BYTES = 5 * 10**9
PICKLE, INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
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
Weights = dict[str, torch.Tensor]


def convert(folder: Path, output: Path, *, max_bytes: int = MAX_FILE_BYTES) -> None:
    """Write the pickled weights of a folder as safetensors into an existing folder.

    EoMT by the names of its authors' code is renamed. `max_bytes`: largest size of a file that has
    more than one tensor.

    Raises:
        ValueError: with the file, for anything that is not a dictionary of tensors.
        OSError: a file cannot be read or written.
    """
    weights: Weights = {}
    for path in pickled_files(folder):
        weights |= read_pickle(path)
    if uses_authors_names(weights):
        config = json.loads((folder / "config.json").read_text())
        use_swiglu = bool(config.get("use_swiglu_ffn"))
        weights = to_transformers(weights, use_swiglu=use_swiglu)
    write_split(weights, output, max_bytes)


def pickled_files(folder: Path) -> list[Path]:
    """Return the files of pickled weights of a folder.

    Raises:
        ValueError: the index is damaged, or names a file outside of the folder.
    """
    if (folder / PICKLE).exists():
        return [folder / PICKLE]
    try:
        names = sorted(set(json.loads((folder / INDEX).read_text())["weight_map"].values()))
        is_inside = all(Path(name).name == name for name in names)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{INDEX}: expected an object with weight_map") from None
    if not is_inside:
        raise ValueError(f"{INDEX}: names a file outside of the folder")
    return [folder / name for name in names]


def read_pickle(path: Path) -> Weights:
    """Return {name: tensor} of a file of torch.save; contents stay in the file, which is mapped.

    Raises:
        ValueError: the file holds anything else.
    """
    with open(path, "rb"):
        pass  # a file that is not there is an OSError, and no damaged pickle
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a foreign file can make torch.load raise anything
        why = " ".join(str(error).split())
        raise ValueError(
            f"{path.name}: not a file of tensors alone by torch.save, nothing of it was run: "
            f"{type(error).__name__}: {why[:200]}"
        ) from None
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path.name}: expected a dictionary of tensors")
    for name, tensor in content.items():
        is_plain = isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided
        if not isinstance(name, str) or not is_plain or tensor.dtype not in DTYPES:
            raise ValueError(f"{path.name}: {str(name)[:80]}: expected a dense tensor")
    return dict(content)


def write_split(weights: Mapping[str, torch.Tensor], output: Path, max_bytes: int) -> None:
    """Write model.safetensors, or several files with an index where one would be too large."""
    parts: list[Weights] = [{}]
    size = 0
    for name in sorted(weights):
        if parts[-1] and size + weights[name].nbytes > max_bytes:
            parts.append({})
            size = 0
        parts[-1][name] = weights[name]
        size += weights[name].nbytes
    if len(parts) == 1:
        write_safetensors(parts[0], output / "model.safetensors")
        return
    files = [f"model-{i:05}-of-{len(parts):05}.safetensors" for i in range(1, len(parts) + 1)]
    for file, part in zip(files, parts, strict=True):
        write_safetensors(part, output / file)
    file_of = {name: file for file, part in zip(files, parts, strict=True) for name in part}
    total = sum(tensor.nbytes for tensor in weights.values())
    index = {"metadata": {"total_size": total}, "weight_map": file_of}
    write_json(output / "model.safetensors.index.json", index)


def write_safetensors(weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write a safetensors file tensor by tensor.

    The writer of safetensors needs a contiguous copy of all tensors at once.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in weights.items():
        end = offset + tensor.nbytes
        header[name] = {
            "dtype": DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in weights.values():
            file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    fsync(path)


def main(arguments: Iterable[str]) -> int:
    """Convert FOLDER into OUTPUT. Returns the exit code: 2 with one line on stderr if refused."""
    folder, output = map(Path, arguments)
    try:
        convert(folder, output)
    except (ValueError, OSError) as error:
        print(str(error) or type(error).__name__, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
