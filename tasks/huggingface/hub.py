"""Resolution of `--model NAME`: an architecture of ours, a local Hugging Face folder or a hub id.

Only safetensors and JSON files are read. A pickled checkpoint is refused unopened, and code of a
hub repository is never fetched.
"""

import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from visionloop.engine.config.suggest import did_you_mean
from visionloop.engine.errors import UserError
from visionloop.engine.types import JsonObject

HUB_FILES = [
    "config.json",
    "preprocessor_config.json",
    "model*.safetensors",
    "model*.safetensors.index.json",
]
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".tar", ".pyth")
EXPORTS = (
    ".onnx",
    ".engine",
    ".tflite",
    ".pb",
    ".h5",
    ".keras",
    ".gguf",
    ".mlmodel",
    ".torchscript",
)
MODEL_FILES = (".safetensors", *PICKLES, *EXPORTS)
CONVERT = "visionloop-models convert-weights"
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")


class HubOffline(UserError):
    """Weights that are not on this machine while the hub cannot be reached. why: the reason."""

    def __init__(self, message: str, why: str) -> None:
        super().__init__(message, code="offline", field="model")
        self.why = why


@dataclass(frozen=True)
class ModelSource:
    """The start of a model, as `--model` and `--from-scratch` name it.

    folder: a local folder with config.json; None for an architecture of ours.
    weights: load the weights of the folder; False: draw them at random.
    """

    name: str
    folder: Path | None
    weights: bool


@dataclass(frozen=True)
class ModelNames:
    """The names that `--model` of a task accepts besides folders and hub ids.

    architectures: names that can be built without weights.
    default: the name without `--model`.
    example: a hub id, for messages.
    aliases: {other name: hub id or name}.
    architecture_of: {hub id: name} of released weights; their architecture is built without asking
        the hub. `--model NAME` loads the first hub id listed for the name.
    pickles: hub ids whose weights are released as a pickle alone.
    """

    architectures: tuple[str, ...]
    default: str
    example: str
    aliases: dict[str, str] = field(default_factory=dict)
    architecture_of: dict[str, str] = field(default_factory=dict)
    pickles: frozenset[str] = frozenset()

    @property
    def pretrained(self) -> dict[str, str]:
        """Return {name: hub id} of the names with released weights."""
        return {name: hub_id for hub_id, name in reversed(self.architecture_of.items())}

    def model_id(self, name: str) -> str:
        """Return the hub id of a name's weights, or the architecture that has none.

        Any other name is returned unchanged.
        """
        name = self.aliases.get(name, name)
        return self.pretrained.get(name, name)

    def names(self) -> dict[str, str]:
        """Return {name: model id} of all names, sorted."""
        names = {*self.architectures, *self.aliases, *self.architecture_of}
        return {name: self.model_id(name) for name in sorted(names)}

    def is_from_scratch(self, name: str | None, from_scratch: bool) -> bool:
        """Return True when the weights will be random. Touches neither disk nor network."""
        name = self.aliases.get(name, name) if name else self.default
        return from_scratch or (name in self.architectures and name not in self.pretrained)

    def start(self, values: JsonObject, presets: Collection[str]) -> JsonObject:
        """Resolve "model", "preset" and "from_scratch" for a recipe.

        Without --preset it is "scratch" for random weights and "finetune" otherwise. Raises
        UserError for a preset that is not in `presets`.
        """
        model = values["model"] or self.default
        scratch = self.is_from_scratch(model, values["from_scratch"])
        preset = values["preset"] or ("scratch" if scratch else "finetune")
        if preset not in presets:
            expected = f"expected one of {', '.join(presets)}"
            raise UserError(
                f"--preset: {expected}, got {preset!r}{did_you_mean(preset, presets)}",
                field="preset",
            )
        return {"model": model, "preset": preset, "from_scratch": scratch}

    def find(self, name: str | None, from_scratch: bool) -> ModelSource:
        """Return the ModelSource of `--model` and `--from-scratch`, downloading it if needed.

        Raises UserError for a folder that does not exist or holds no weights, for a name that is
        neither folder nor hub id, and when the hub cannot be reached.
        """
        name = name or self.default
        scratch = self.is_from_scratch(name, from_scratch)
        path = Path(name).expanduser()
        refuse_file(path)
        if (path.exists() and name not in self.architectures) or name.startswith((".", "/", "~")):
            return ModelSource(name, check_folder(path, weights=not scratch), weights=not scratch)
        alias = self.aliases.get(name, name)
        architecture = self.architecture_of.get(alias, alias)
        if scratch and architecture in self.architectures:
            return ModelSource(architecture, None, weights=False)
        hub_id = self.model_id(name)
        if not HUB_ID.fullmatch(hub_id):
            raise UserError(f"--model {name}: no such folder", field="model", file=name)
        if "/" not in hub_id:
            architectures, hint = ", ".join(self.architectures), did_you_mean(name, self.names())
            raise UserError(
                f"--model {name}: neither a folder, nor one of {architectures}, nor a hub id such "
                f"as {self.example}{hint}",
                field="model",
            )
        return ModelSource(name, self.fetch(name, hub_id, weights=not scratch), weights=not scratch)

    def fetch(self, name: str, hub_id: str, *, weights: bool = True) -> Path:
        """Return the local folder of a hub id: from the hub's cache if complete, else downloaded.

        Args:
            name: the name that the user gave, for messages.
            hub_id: the repository on the hub.
            weights: the weights too, not the config alone.

        Raises:
            HubOffline: not in the cache, and the hub cannot be reached.
            UserError: the hub has no such repository, it lacks a file, or its weights are a pickle.
        """
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
        )

        patterns = HUB_FILES if weights else HUB_FILES[:2]
        try:
            return check_folder(
                snapshot_download(hub_id, allow_patterns=patterns, local_files_only=True),
                weights=weights,
            )
        except (LocalEntryNotFoundError, HFValidationError, UserError):
            pass  # not in the cache, or only a part of it
        if weights and hub_id in self.pickles:
            raise UserError(
                f"--model {name}: the weights of {hub_id} are a pickle, which can run code and is "
                f"not opened; download the repository into a folder, `{CONVERT} FOLDER OUTPUT`, "
                "then --model OUTPUT",
                field="model",
                hint=f"{CONVERT} FOLDER OUTPUT",
            )
        why = offline_reason()
        if why:
            files = "weights" if weights else "config"
            raise HubOffline(
                f"--model {name}: the {files} of {hub_id} are not on this machine and {why}; give "
                "a local folder as --model, copy the hub's cache here, or use --from-scratch with "
                f"one of {', '.join(self.architectures)}",
                why,
            )
        try:
            return check_folder(snapshot_download(hub_id, allow_patterns=patterns), weights=weights)
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
            raise UserError(
                f"--model {name}: {str(error).splitlines()[0]}", field="model"
            ) from None


def refuse_file(path: Path) -> None:
    """Raise UserError for a file of weights, there or not, where a folder is expected."""
    if path.suffix.lower() not in MODEL_FILES or path.is_dir():
        return
    if path.suffix.lower() == ".safetensors":
        why = f"is a file, expected its folder with config.json: --model {path.parent}"
    elif path.suffix.lower() in PICKLES:
        why = (
            "a pickle, which can run code and is not opened; expected a folder with config.json and"
            " model.safetensors, as save_pretrained of transformers writes it and best/ of a run is"
        )
    else:
        why = (
            "an exported model, which cannot be loaded; expected a folder with config.json and "
            "model.safetensors, such as best/ of a run"
        )
    raise UserError(f"--model {path}: {why}", field="model", file=str(path))


def check_folder(folder: str | Path, *, weights: bool = True) -> Path:
    """Return the folder if it holds a config and, with `weights`, safetensors; else UserError."""
    folder = Path(folder)
    refuse_file(folder)
    if not folder.is_dir():
        raise UserError(f"--model {folder}: no such folder", field="model", file=str(folder))
    if not (folder / "config.json").exists():
        best = folder / "best"
        hint = f"; did you mean {best}?" if (best / "config.json").exists() else ""
        why = f"not a Hugging Face model folder, config.json is missing{hint}"
        raise UserError(f"--model {folder}: {why}", field="model", file=str(folder))
    if not weights or any(
        (folder / name).exists() for name in ("model.safetensors", "model.safetensors.index.json")
    ):
        return folder
    pickled = next((name for name in PICKLED if (folder / name).exists()), None)
    if pickled:
        raise UserError(
            f"--model {folder}: holds {pickled} alone, a pickle, which can run code and is not "
            f"opened; `{CONVERT} {folder} OUTPUT` writes safetensors for --model OUTPUT",
            field="model",
            file=str(folder / pickled),
            hint=f"{CONVERT} {folder} OUTPUT",
        )
    if any(folder.glob("weights-*-of-*.safetensors")):
        raise UserError(
            f"--model {folder}: a checkpoint of a sharded run; use best/ of the run, or write it "
            f"whole: visionloop-checkpoint consolidate {folder} OUTPUT",
            field="model",
            file=str(folder),
        )
    why = "model.safetensors is missing; --from-scratch uses the config alone"
    raise UserError(f"--model {folder}: {why}", field="model", file=str(folder))


def local_config(model: str) -> JsonObject:
    """Return the config.json of a local folder; {} where there is none that can be read.

    Loading the model reports what is wrong with it.
    """
    try:
        content = json.loads((Path(model).expanduser() / "config.json").read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def offline_reason() -> str | None:
    """Return the reason why the hub cannot be reached, or None.

    Tried once, for 5 seconds: the client of the hub would retry for minutes.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        return "HF_HUB_OFFLINE is set"
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=5).close()
    except urllib.error.HTTPError:
        return None  # the hub responds
    except OSError as error:
        return f"{endpoint} cannot be reached ({getattr(error, 'reason', error)})"
    return None
