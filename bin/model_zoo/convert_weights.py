"""`models convert-weights`: rewrite pickled weights as safetensors, which `--model` reads."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from visionloop.engine.checkpoints.files import replace_folder
from visionloop.engine.errors import UserError
from visionloop.tasks.huggingface.hub import PICKLED

COPIED = ("config.json", "preprocessor_config.json")


def run_convert_weights(folder: str, output: str) -> None:
    """Write a folder for `--model` from one with pytorch_model.bin; print its path.

    A process of its own opens the pickle, with PyTorch's restricted unpickler; OUTPUT appears when
    all is written. Weights of EoMT are compared with config.json by name and shape.

    Raises:
        UserError: FOLDER has no config.json or no pickled weights, or they are not tensors alone or
            not those of config.json; OUTPUT exists; a file cannot be read or written.
    """
    source, target = Path(folder), Path(output)
    check_source(source)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        why = f"{output}: exists, expected a new folder"
        raise UserError(why, field="output", file=output)
    try:
        with replace_folder(target) as temporary:
            convert_in_process(source, temporary)
            for name in COPIED:
                if (source / name).exists():
                    shutil.copyfile(source / name, temporary / name)
            check_weights(source, temporary)
    except OSError as error:
        why = f"{output}: {error.strerror or error}"
        raise UserError(why, field="output", file=output) from None
    print(target)


def check_source(folder: Path) -> None:
    """Raise UserError for a folder without config.json, its model_type or pickled weights."""
    if not any((folder / name).exists() for name in PICKLED):
        why = f"{folder}: no {PICKLED[0]}, expected a folder with pickled weights"
        raise UserError(why, field="folder", file=str(folder))
    try:
        config = json.loads((folder / "config.json").read_text())
        has_type = isinstance(config["model_type"], str)
    except (OSError, ValueError, KeyError, TypeError):
        has_type = False
    if not has_type:
        why = f"{folder / 'config.json'}: expected the config of transformers, with model_type"
        raise UserError(why, field="folder", file=str(folder / "config.json"))


def convert_in_process(source: Path, output: Path) -> None:
    """Run `pickle_process` and raise UserError with its line when it refuses the file."""
    module = "visionloop.bin.model_zoo.pickle_process"
    command = [sys.executable, "-P", "-m", module, str(source.absolute()), str(output.absolute())]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        lines = result.stderr.strip().splitlines() or [f"ended with {result.returncode}"]
        raise UserError(f"{source}: {lines[-1]}", field="folder", file=str(source))


def check_weights(source: Path, converted: Path) -> None:
    """Raise UserError unless the weights of an EoMT have the names and shapes of its config.json.

    Other models are compared when they are loaded.
    """
    import torch
    from safetensors import safe_open

    from visionloop.tasks.segmentation.model import (
        MAY_BE_MISSING,
        NETWORKS,
        new_model,
        parts_of,
        read_config,
        stored_tensors,
    )

    if json.loads((converted / "config.json").read_text())["model_type"] not in NETWORKS:
        return
    config = read_config(converted)
    with torch.device("meta"):
        module = new_model(config, list(config.id2label.values()))
    files = stored_tensors(converted)
    fused = {part for name in files for part in parts_of(name)}
    for name, tensor in module.state_dict().items():
        if name in fused or (name not in files and name.startswith(MAY_BE_MISSING)):
            continue
        expected, found = list(tensor.shape), None
        if name in files:
            with safe_open(files[name], framework="pt") as file:
                found = file.get_slice(name).get_shape()
        if found != expected:
            here = f"is {found}" if found is not None else "is missing"
            why = f"{source}: {name} {here}, config.json asks for {expected}"
            raise UserError(why, field="folder", file=str(source))
