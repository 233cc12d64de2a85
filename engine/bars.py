"""Bars of progress: in a terminal and in a notebook, nowhere else."""

import sys

from tqdm.auto import tqdm


def is_watched():
    """Whether somebody sees a bar grow: stderr is a terminal, or this is a notebook's kernel, whose stderr is none."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return sys.stderr.isatty() or (shell is not None and "IPKernelApp" in shell.config)


def bar(**options):
    """A tqdm bar where `is_watched`, else one that shows nothing."""
    return tqdm(disable=not is_watched(), **options)
