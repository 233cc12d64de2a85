"""Converter of torchvision's AlexNet and the published LPIPS heads (0.1) to the file of LPIPS."""

from pathlib import Path

import torch
from safetensors.torch import save

from visionloop.engine.checkpoints.files import replace_file
from visionloop.engine.errors import UserError
from visionloop.metrics.lpips import SHAPES, read_tensors

# A file of torch.save is a zip archive with a pickle inside, an older one a bare pickle. A
# safetensors file has its json behind a length of 8 bytes, which may begin like a pickle.
PICKLE_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".pkl", ".pickle")
PICKLE_STARTS = (b"PK\x03\x04", b"\x80")
JSON_OFFSET, JSON_START = 8, b"{"
REWRITE = (
    "import torch, safetensors.torch as s; w = torch.load({source!r}, weights_only=True); "
    "s.save_file({{k: v.detach().contiguous() for k, v in w.items()}}, {target!r})"
)


def convert_lpips(backbone: str, heads: str, output: str) -> None:
    """Write the safetensors file of LPIPS, float32, with the keys of metrics/lpips.py.

    One file may be both backbone and heads. An earlier output is replaced when the new one is
    complete.

    Args:
        backbone: safetensors of torchvision's AlexNet, "features.0.weight" and so on; its
            classifier is left out.
        heads: safetensors with "lin0.model.1.weight" to 4, or "lins.0.model.1.weight", or
            "heads.0.weight", each [1, C, 1, 1].
        output: file to write.

    Raises:
        UserError: for a pickle, which is never opened, and with the file and the first key that is
            missing or has another shape.
    """
    target = Path(output)
    for flag, path in (("backbone", backbone), ("heads", heads)):
        refuse_pickle(flag, path)
        if target.resolve() == Path(path).resolve():
            raise UserError(
                f"--output {output}: is the file of --{flag}; choose another",
                field="output",
                file=output,
            )
    refuse_foreign_file(target)
    tensors: dict[str, torch.Tensor] = {}
    for flag, path, aliases in (
        ("backbone", backbone, backbone_names()),
        ("heads", heads, head_names()),
    ):
        try:
            tensors |= read_tensors(path, aliases)
        except ValueError as error:
            raise UserError(f"--{flag} {error}", field=flag, file=path) from None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_file(target, save(tensors, metadata={"format": "pt"}))
    except OSError as error:
        why = f"--output {output}: {error.strerror or error}"
        raise UserError(why, field="output", file=output) from None


def backbone_names() -> dict[str, tuple[str, ...]]:
    """Return {key: (name in the file,)}; torchvision's names are the keys."""
    return {key: (key,) for key in SHAPES if key.startswith("features.")}


def head_names() -> dict[str, tuple[str, ...]]:
    """Return {key: names in the file}.

    They are the published one, that of the whole network in the `lpips` package, and the key.
    """
    keys = [key for key in SHAPES if key.startswith("heads.")]
    return {
        key: (f"lin{i}.model.1.weight", f"lins.{i}.model.1.weight", key)
        for i, key in enumerate(keys)
    }


def refuse_pickle(flag: str, path: str) -> None:
    """Raise UserError, with the command that rewrites it, for a file that is or may be a pickle."""
    try:
        with open(path, "rb") as file:
            start = file.read(JSON_OFFSET + 1)
    except OSError as error:
        why = f"--{flag} {path}: {error.strerror or error}"
        raise UserError(why, field=flag, file=path) from None
    if start[JSON_OFFSET:] == JSON_START:
        return
    if start.startswith(PICKLE_STARTS) or Path(path).suffix.lower() in PICKLE_SUFFIXES:
        line = REWRITE.format(source=path, target=str(Path(path).with_suffix(".safetensors")))
        why = (
            "a pickle, which can run code and is not opened; where you trust the file, rewrite it "
            f'as safetensors: python -c "{line}"'
        )
        raise UserError(f"--{flag} {path}: {why}", field=flag, file=path, hint=line)


def refuse_foreign_file(output: Path) -> None:
    """Raise UserError for an output that exists and is not from an earlier conversion."""
    if not output.exists():
        return
    try:
        read_tensors(output, {key: (key,) for key in SHAPES})
    except ValueError:
        why = f"--output {output}: exists and is not an LPIPS file; choose another"
        raise UserError(why, field="output", file=str(output)) from None
