"""Where `--model NAME` leads: an architecture of our own, or a Hugging Face folder on this disk or from the hub.

Safetensors and json alone are read; a pickled checkpoint is refused unopened, and code of a
repository is never fetched.
"""

import os
import re
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from visionloop.engine.config.suggest import did_you_mean
from visionloop.engine.errors import UserError

HUB_FILES = [
    "config.json",
    "preprocessor_config.json",
    "model*.safetensors",
    "model*.safetensors.index.json",
]
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")


class HubOffline(UserError):
    """Weights that are not on this machine, and the hub cannot be asked. why: the reason by itself."""

    def __init__(self, message, why):
        super().__init__(message, code="offline", field="model")
        self.why = why


@dataclass(frozen=True)
class ModelSource:
    """What `--model` means. folder: with config.json, None for an architecture of our own; weights: read them or start at random."""

    name: str
    folder: Path | None
    weights: bool


@dataclass(frozen=True)
class ModelRegistry:
    """The names that a task's `--model` knows besides folders and hub ids.

    architectures: names that can be built without weights; pretrained: {name: hub id} of those with
    released weights; aliases: {other name: hub id or name}; default: without `--model`; example: a
    hub id, for messages; architecture_of: {hub id: name} of weights whose architecture we can build
    without asking the hub.
    """

    architectures: tuple[str, ...]
    pretrained: dict[str, str]
    default: str
    example: str
    aliases: dict[str, str] = field(default_factory=dict)
    architecture_of: dict[str, str] = field(default_factory=dict)

    def model_id(self, name):
        """What a name stands for: the hub id of its weights, or the architecture that has none; any other name stays as it is."""
        known = self.aliases.get(name, name)
        return self.pretrained.get(known, known)

    def names(self):
        """{every name that is known here: its model id}."""
        known = {
            *self.architectures,
            *self.pretrained.values(),
            *self.aliases,
            *self.architecture_of,
        }
        return {name: self.model_id(name) for name in sorted(known)}

    def is_from_scratch(self, name, from_scratch):
        """True when the weights will be random. Touches neither disk nor network."""
        name = self.aliases.get(name, name) or self.default
        return from_scratch or (name in self.architectures and name not in self.pretrained)

    def start(self, values, presets):
        """{"model", "preset", "from_scratch"} as settled; without --preset "scratch" or "finetune". Raises UserError for another preset."""
        model = values["model"] or self.default
        scratch = self.is_from_scratch(model, values["from_scratch"])
        preset = values["preset"] or ("scratch" if scratch else "finetune")
        if preset not in presets:
            raise UserError(
                f"--preset: expected one of {', '.join(presets)}, got {preset!r}{did_you_mean(preset, presets)}",
                field="preset",
            )
        return {"model": model, "preset": preset, "from_scratch": scratch}

    def find(self, name, from_scratch):
        """The ModelSource of `--model` and `--from-scratch`. Raises UserError: no such folder, no weights, no way to the hub."""
        name = name or self.default
        scratch = self.is_from_scratch(name, from_scratch)
        path = Path(name).expanduser()
        if (path.exists() and name not in self.architectures) or name.startswith((".", "/", "~")):
            return ModelSource(name, check_folder(path, weights=not scratch), weights=not scratch)
        known = self.aliases.get(name, name)
        architecture = self.architecture_of.get(known, known)
        if scratch and architecture in self.architectures:
            return ModelSource(architecture, None, weights=False)
        hub_id = self.model_id(name)
        if not HUB_ID.fullmatch(hub_id):
            raise UserError(f"--model {name}: no such folder", field="model", file=name)
        if "/" not in hub_id:
            names, near = ", ".join(self.architectures), did_you_mean(name, self.names())
            why = f"neither a folder, nor one of {names}, nor a hub id such as {self.example}{near}"
            raise UserError(f"--model {name}: {why}", field="model")
        return ModelSource(name, self.fetch(name, hub_id, weights=not scratch), weights=not scratch)

    def fetch(self, name, hub_id, *, weights=True):
        """The local folder of a hub id: from the cache if it is whole there, else downloaded. name: what the user called it.

        Raises UserError when it cannot be had.
        """
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
        )

        wanted = HUB_FILES if weights else HUB_FILES[:2]
        try:
            return check_folder(
                snapshot_download(hub_id, allow_patterns=wanted, local_files_only=True),
                weights=weights,
            )
        except (LocalEntryNotFoundError, HFValidationError, UserError):
            pass  # not in the cache, or a part of it only
        why = offline_reason()
        if why:
            what = "weights" if weights else "config"
            raise HubOffline(
                f"--model {name}: the {what} of {hub_id} are not on this machine and {why}; give a local folder as --model, "
                f"copy the hub's cache here, or use --from-scratch with one of {', '.join(self.architectures)}",
                why,
            )
        try:
            return check_folder(snapshot_download(hub_id, allow_patterns=wanted), weights=weights)
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
            raise UserError(
                f"--model {name}: {str(error).splitlines()[0]}", field="model"
            ) from None


def check_folder(folder, *, weights=True):
    """The folder, if it holds a config and, when asked for, weights in safetensors."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"--model {folder}: no such folder", field="model", file=str(folder))
    if not (folder / "config.json").exists():
        did_you_mean = (
            f"; did you mean {folder / 'best'}?"
            if (folder / "best" / "config.json").exists()
            else ""
        )
        why = f"not a Hugging Face model folder, config.json is missing{did_you_mean}"
        raise UserError(f"--model {folder}: {why}", field="model", file=str(folder))
    if not weights or any(
        (folder / name).exists() for name in ("model.safetensors", "model.safetensors.index.json")
    ):
        return folder
    pickled = next((name for name in PICKLED if (folder / name).exists()), None)
    if pickled:
        raise UserError(
            f"--model {folder}: holds {pickled} alone, a pickle, which can run code and is not opened; save it as model.safetensors",
            field="model",
            file=str(folder / pickled),
            hint="save_pretrained on a machine where you trust the file writes safetensors",
        )
    why = "model.safetensors is missing; --from-scratch uses the config alone"
    raise UserError(f"--model {folder}: {why}", field="model", file=str(folder))


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
