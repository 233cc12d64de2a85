"""The process of `models convert-weights`: the only code of the project that opens a pickle.

`python -m visionloop.bin.model_zoo.pickle_process FOLDER OUTPUT` reads the pytorch_model.bin of
FOLDER with PyTorch's restricted unpickler, which builds tensors and runs nothing, and writes
safetensors into OUTPUT. Contents stay in the mapped file until they are written, tensor by tensor.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path

import torch

from visionloop.engine.checkpoints.files import fsync_tree
from visionloop.engine.checkpoints.weight_files import DTYPES, LARGEST_FILE, write_weights
from visionloop.tasks.segmentation.weight_conversion import to_transformers, uses_authors_names

PICKLE, INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
Weights = dict[str, torch.Tensor]


def convert(folder: Path, output: Path, *, largest_file: int = LARGEST_FILE) -> None:
    """Write the pickled weights of a folder as safetensors into an existing folder.

    EoMT by the names of its authors' code is renamed. largest_file: most bytes of a file that holds
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
    write_weights(output, weights, largest_file=largest_file)
    fsync_tree(output)


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
