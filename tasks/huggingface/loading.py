"""What every task needs from transformers besides its models."""

import re
from contextlib import contextmanager

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig
from transformers.utils import logging as library_logging

from visionloop.engine.errors import UserError

CODE_KEYS = (
    "auto_map",
    "trust_remote_code",
)  # of a config.json whose model's code lies in its repository
GENERIC_NAME = re.compile(r"LABEL_\d+")  # what the library calls classes that nobody named


@contextmanager
def quiet_transformers():
    """Without the library's progress bars and load report: what matters in it, we say ourselves."""
    level, bars = library_logging.get_verbosity(), library_logging.is_progress_bar_enabled()
    library_logging.set_verbosity_error()
    library_logging.disable_progress_bar()
    try:
        yield
    finally:
        library_logging.set_verbosity(level)
        if bars:
            library_logging.enable_progress_bar()


def class_names(config):
    """The names in a config's id2label, in order of id; None when they are the library's generic ones."""
    names = [str(config.id2label[i]) for i in sorted(config.id2label)]
    return None if all(GENERIC_NAME.fullmatch(name) for name in names) else names


def name_classes(config, classes):
    """Write the class names into a config, so that the saved folder answers with names."""
    config.id2label = dict(enumerate(classes))
    config.label2id = {name: i for i, name in enumerate(classes)}


def load_config(folder):
    """The config of a Hugging Face folder, without what it says of code. Raises UserError when the library cannot read it."""
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
    for name in CODE_KEYS:  # what we write must not lead anybody else to that code either
        config.__dict__.pop(name, None)
    return config


def load_weights(kind, folder, config, may_differ):
    """A module of the library's class `kind` with the weights of `folder`, in fp32.

    may_differ(module, name): whether a weight may be missing, or one too many. Raises UserError for
    any other, and for a file that cannot be read.
    """
    try:
        with quiet_transformers():
            module, report = kind.from_pretrained(
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
    for what in ("missing", "unexpected"):
        strange = [name for name in sorted(report[f"{what}_keys"]) if not may_differ(module, name)]
        if strange:
            raise UserError(
                f"--model {folder}: {len(strange)} {what} weights, first {strange[0]}",
                field="model",
                file=str(folder),
            )
    return module


# Which rows of a trained head belong to the classes of new data.


def match_classes(known, wanted):
    """{row wanted: row known} of the names that are the same but for capitals, spaces, hyphens and underscores."""
    row_of = {_plain(name): i for i, name in enumerate(known or ())}
    return {i: row_of[_plain(name)] for i, name in enumerate(wanted) if _plain(name) in row_of}


def _plain(name):
    return re.sub(r"[\s_-]+", "", str(name)).lower()
