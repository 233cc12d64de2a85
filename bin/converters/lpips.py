"""The one file that LPIPS reads, from torchvision's AlexNet and the published heads (AlexNet, version 0.1)."""

import os
import tempfile
from pathlib import Path

from safetensors.torch import save_file

from visionloop.engine.errors import UserError
from visionloop.metrics.lpips import SHAPES, read_tensors

# A file of torch.save is a zip archive with a pickle inside, an older one a bare pickle. A
# safetensors file has its json behind a length of 8 bytes, which may begin like a pickle.
PICKLE_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".pkl", ".pickle")
PICKLE_STARTS = (b"PK\x03\x04", b"\x80")
JSON_AT, JSON_START = 8, b"{"
REWRITE = (
    "import torch, safetensors.torch as s; w = torch.load({source!r}, weights_only=True); "
    "s.save_file({{k: v.detach().contiguous() for k, v in w.items()}}, {target!r})"
)


def convert_lpips(backbone, heads, output):
    """Write `output`, float32, under the names of metrics/lpips.py; an earlier one of ours is replaced when the new one is whole.

    backbone: safetensors of torchvision's AlexNet, "features.0.weight" and so on; its classifier is
    left out. heads: safetensors with "lin0.model.1.weight" (or "lins.0.model.1.weight", or ours) to
    4, each [1, C, 1, 1]. One file may be both. Raises UserError for a pickle, which is never
    opened, and with the file and the first key that is missing or has another shape.
    """
    output = Path(output)
    for flag, path in (("backbone", backbone), ("heads", heads)):
        refuse_pickle(flag, path)
        if output.resolve() == Path(path).resolve():
            raise UserError(
                f"--output {output}: is the file of --{flag}; choose another",
                field="output",
                file=str(output),
            )
    refuse_foreign_file(output)
    tensors = {}
    for flag, path, spellings in (
        ("backbone", backbone, backbone_names()),
        ("heads", heads, head_names()),
    ):
        try:
            tensors |= read_tensors(path, spellings)
        except ValueError as error:
            raise UserError(f"--{flag} {error}", field=flag, file=str(path)) from None
    try:
        write_whole(tensors, output)
    except OSError as error:
        raise UserError(
            f"--output {output}: {error.strerror or error}", field="output", file=str(output)
        ) from None


def backbone_names():
    """{key: (name in the file,)}: torchvision's are ours."""
    return {key: (key,) for key in SHAPES if key.startswith("features.")}


def head_names():
    """{key: names in the file}: as published, as the whole network of the `lpips` package holds them again, and ours."""
    keys = [key for key in SHAPES if key.startswith("heads.")]
    return {
        key: (f"lin{i}.model.1.weight", f"lins.{i}.model.1.weight", key)
        for i, key in enumerate(keys)
    }


def refuse_pickle(flag, path):
    """Raise UserError, with the line that rewrites it, for a file that is or may be a pickle."""
    try:
        with open(path, "rb") as file:
            start = file.read(JSON_AT + 1)
    except OSError as error:
        raise UserError(
            f"--{flag} {path}: {error.strerror or error}", field=flag, file=str(path)
        ) from None
    if start[JSON_AT:] == JSON_START:
        return
    if start.startswith(PICKLE_STARTS) or Path(path).suffix.lower() in PICKLE_SUFFIXES:
        line = REWRITE.format(source=str(path), target=str(Path(path).with_suffix(".safetensors")))
        why = "a pickle, which can run code and is not opened; where you trust the file, rewrite it as safetensors"
        raise UserError(
            f'--{flag} {path}: {why}: python -c "{line}"', field=flag, file=str(path), hint=line
        )


def refuse_foreign_file(output):
    """Raise UserError for an output that exists and is not what an earlier conversion wrote."""
    if not output.exists():
        return
    try:
        read_tensors(output, {key: (key,) for key in SHAPES})
    except ValueError:
        why = "exists and is no file of LPIPS; choose another"
        raise UserError(f"--output {output}: {why}", field="output", file=str(output)) from None


def write_whole(tensors, output):
    """Written beside the output, then renamed: an interrupted one leaves nothing that could be taken for it."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as folder:
        part = Path(folder) / output.name
        save_file(tensors, part, metadata={"format": "pt"})
        os.replace(part, output)
