"""What every task needs from transformers besides its models."""

import re
from contextlib import contextmanager

from transformers.utils import logging as library_logging

GENERIC_NAME = re.compile(r"LABEL_\d+")  # what the library calls classes that nobody named


@contextmanager
def quiet_library():
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
