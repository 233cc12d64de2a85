"""The host syncs that a training step may have, by the module that waits for the device."""

import inspect
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import torch
from pretended_cuda import calling_line

from visionloop.tasks.detection import matcher as detection_matcher
from visionloop.tasks.segmentation import matcher as segmentation_matcher


def file_stem(module: ModuleType) -> str:
    return Path(inspect.getfile(module)).stem


# host syncs of one micro-batch: a matcher copies all of its costs at once
EXPECTED_SYNCS: dict[str, dict[str, int]] = {
    "classification": {},
    "super_resolution": {},
    "detection": {file_stem(detection_matcher): 1},
    "segmentation": {file_stem(segmentation_matcher): 1},
    "instance_segmentation": {file_stem(segmentation_matcher): 1},
    "panoptic_segmentation": {file_stem(segmentation_matcher): 1},
}


def count_by_module(syncs: Mapping[str, float]) -> dict[str, float]:
    """Sum {"file:line": number} by file name."""
    result: dict[str, float] = defaultdict(float)
    for line, number in syncs.items():
        result[Path(line.rpartition(":")[0]).stem] += number
    return dict(result)


@contextmanager
def record_cuda_syncs() -> Iterator[Counter[str]]:
    """Yield {"file:line": number} of host syncs with CUDA in the block, without collectives."""
    syncs: Counter[str] = Counter()

    def note(message: object, *_: object, **__: object) -> None:
        if "synchronizing CUDA operation" in str(message):
            syncs[calling_line(warnings.__file__, __file__)] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield syncs
        finally:
            torch.cuda.set_sync_debug_mode("default")
