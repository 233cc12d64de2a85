"""Imports that take seconds."""

import gc
import sys
from contextlib import contextmanager


@contextmanager
def heavy_imports():
    """Within the block, which imports torch and transformers, nobody looks for garbage; nor later among what the imports made.

    Of the 700 000 objects made there nearly all stay, and going through them takes a sixth of the time of these imports, and 0.2 s
    each time that the collector does it in mid-training; what is garbage and stays takes 8 MiB (measured). Where torch is there
    already, as in a test, nothing is changed: objects of others must not be kept for good.
    """
    if "torch" in sys.modules:
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
