"""Loading of configs, weights and class names with transformers."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from visionloop.engine.errors import UserError

# keys of a config.json whose model has custom code in the repository
CODE_KEYS = ("auto_map", "trust_remote_code")
GENERIC_NAME = re.compile(r"LABEL_\d+")  # the name that transformers gives to an unnamed class


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence the progress bars and load reports of transformers; we report what matters there."""
    level = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()


def class_names(config: PretrainedConfig) -> list[str] | None:
    """Return the names in a config's id2label, in order of id; None when they are generic."""
    names = [str(config.id2label[i]) for i in sorted(config.id2label)]
    return None if all(GENERIC_NAME.fullmatch(name) for name in names) else names


def name_classes(config: PretrainedConfig, classes: Sequence[str]) -> None:
    """Write class names into a config, so that the saved folder predicts names."""
    config.id2label = dict(enumerate(classes))
    config.label2id = {name: i for i, name in enumerate(classes)}


def match_classes(trained: Sequence[str] | None, classes: Sequence[str]) -> dict[int, int]:
    """Match the classes of the data to the rows of a trained head by name.

    Names are equal but for capitals, spaces, hyphens and underscores.

    Args:
        trained: names of the trained head's rows, or None.
        classes: names of the data's classes.

    Returns:
        {class of the data: row of the trained head} of the classes that have one.
    """
    row_of = {_plain(name): i for i, name in enumerate(trained or ())}
    return {i: row_of[_plain(name)] for i, name in enumerate(classes) if _plain(name) in row_of}


def load_config(folder: str | Path) -> PretrainedConfig:
    """Load the config of a Hugging Face folder, without its references to code.

    Raises UserError when transformers cannot read it.
    """
    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except StrictDataclassError as error:  # a field of the wrong type or value
        why = f"config.json: {' '.join(str(error).split())}"
        raise UserError(f"--model {folder}: {why}", field="model", file=str(folder)) from None
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"--model {folder}: {str(error).splitlines()[0]}", field="model", file=str(folder)
        ) from None
    for name in CODE_KEYS:  # a folder that we write must not point others to that code either
        config.__dict__.pop(name, None)
    return config


def load_weights(
    model_class: type[PreTrainedModel],
    folder: str | Path,
    config: PretrainedConfig,
    may_differ: Callable[[PreTrainedModel, str], bool],
) -> PreTrainedModel:
    """Load a model of transformers with the weights of a folder, in fp32.

    Args:
        model_class: its `from_pretrained` is called.
        folder: a local Hugging Face folder with safetensors.
        config: of the model to build.
        may_differ: (module, name of a weight) -> True where the weight may be missing, or one that
            the model does not have.

    Raises:
        UserError: another weight is missing or unexpected, or the file cannot be read.
    """
    try:
        with quiet_transformers():
            module, report = model_class.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"--model {folder}: {str(error).strip().splitlines()[0]}",
            field="model",
            file=str(folder),
        ) from None
    for kind in ("missing", "unexpected"):
        names = [name for name in sorted(report[f"{kind}_keys"]) if not may_differ(module, name)]
        if names:
            raise UserError(
                f"--model {folder}: {len(names)} {kind} weights, first {names[0]}",
                field="model",
                file=str(folder),
            )
    return module


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", str(name)).lower()
