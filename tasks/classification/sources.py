"""Where `--model NAME` leads: an architecture of our own, or a Hugging Face folder on this disk or from the hub.

Safetensors and json alone are read; a pickled checkpoint is refused unopened, and code of a repository is never fetched.
"""

import os
import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from visionloop.engine.errors import UserError

# hidden, layers, heads, mlp, patch, image size. vit-tiny and vit-small: DeiT paper, table 1 (arXiv:2012.12877); vit-base: ViT paper,
# table 1 (arXiv:2010.11929). `tiny` is ours: trains on a CPU in minutes.
ARCHITECTURES = {
    "tiny": (96, 6, 3, 384, 8, 64),
    "vit-tiny": (192, 12, 3, 768, 16, 224),
    "vit-small": (384, 12, 6, 1536, 16, 224),
    "vit-base": (768, 12, 12, 3072, 16, 224),
}
# released weights behind the short names; `tiny` has none
PRETRAINED = {
    "vit-tiny": "facebook/deit-tiny-patch16-224",
    "vit-small": "facebook/deit-small-patch16-224",
    "vit-base": "google/vit-base-patch16-224",
}
DEFAULT_MODEL = "tiny"
HUB_FILES = ["config.json", "preprocessor_config.json", "model*.safetensors", "model*.safetensors.index.json"]
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")


@dataclass(frozen=True)
class ModelSource:
    """What `--model` means. folder: with config.json, None for an architecture of our own; weights: read them or start at random."""

    name: str
    folder: Path | None
    weights: bool


def is_from_scratch(name, from_scratch):
    """True when the weights will be random. Touches neither disk nor network."""
    name = name or DEFAULT_MODEL
    return from_scratch or (name in ARCHITECTURES and name not in PRETRAINED)


def find_source(name, from_scratch):
    """The ModelSource of `--model` and `--from-scratch`. Raises UserError: no such folder, no weights, no way to the hub."""
    name = name or DEFAULT_MODEL
    scratch = is_from_scratch(name, from_scratch)
    if scratch and name in ARCHITECTURES:
        return ModelSource(name, None, weights=False)
    path = Path(name).expanduser()
    if path.exists() or name.startswith((".", "/", "~")):
        return ModelSource(name, check_folder(path, weights=not scratch), weights=not scratch)
    hub_id = PRETRAINED.get(name, name)
    if not HUB_ID.fullmatch(hub_id):
        raise UserError(f"--model {name}: no such folder", field="model", file=name)
    if "/" not in hub_id:
        known = ", ".join(ARCHITECTURES)
        example = "google/vit-base-patch16-224"
        raise UserError(f"--model {name}: neither a folder, nor one of {known}, nor a hub id such as {example}", field="model")
    return ModelSource(name, fetch(name, hub_id, weights=not scratch), weights=not scratch)


def check_folder(folder, *, weights=True):
    """The folder, if it holds a config and, when asked for, weights in safetensors."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"--model {folder}: no such folder", field="model", file=str(folder))
    if not (folder / "config.json").exists():
        guess = f"; did you mean {folder / 'best'}?" if (folder / "best" / "config.json").exists() else ""
        why = f"not a Hugging Face model folder, config.json is missing{guess}"
        raise UserError(f"--model {folder}: {why}", field="model", file=str(folder))
    if not weights or any((folder / name).exists() for name in ("model.safetensors", "model.safetensors.index.json")):
        return folder
    pickled = next((name for name in PICKLED if (folder / name).exists()), None)
    if pickled:
        raise UserError(
            f"--model {folder}: holds {pickled} alone, a pickle, which can run code and is not opened; save it as model.safetensors",
            field="model", file=str(folder / pickled), hint="save_pretrained on a machine where you trust the file writes safetensors",
        )
    why = "model.safetensors is missing; --from-scratch uses the config alone"
    raise UserError(f"--model {folder}: {why}", field="model", file=str(folder))


def fetch(name, hub_id, *, weights):
    """The local folder of a hub id: from the cache if it is whole there, else downloaded."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = HUB_FILES if weights else HUB_FILES[:2]
    try:
        return check_folder(snapshot_download(hub_id, allow_patterns=wanted, local_files_only=True), weights=weights)
    except (LocalEntryNotFoundError, HFValidationError, UserError):
        pass  # not in the cache, or a part of it only
    why = offline_reason()
    if why:
        what = "weights" if weights else "config"
        raise UserError(
            f"--model {name}: the {what} of {hub_id} are not on this machine and {why}; give a local folder as --model, "
            f"copy the hub's cache here, or use --from-scratch with one of {', '.join(ARCHITECTURES)}",
            code="offline", field="model",
        )
    try:
        return check_folder(snapshot_download(hub_id, allow_patterns=wanted), weights=weights)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(f"--model {name}: {str(error).splitlines()[0]}", field="model") from None


def offline_reason():
    """Why the hub cannot be asked, or None. Tried once, for 5 seconds: the hub's own client would retry for minutes."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        return "HF_HUB_OFFLINE is set"
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=5).close()
    except urllib.error.HTTPError:
        return None  # it answers
    except OSError as error:
        return f"{endpoint} cannot be reached ({getattr(error, 'reason', error)})"
    return None
