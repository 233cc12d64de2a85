"""Subsets of a dataset, and the validation split of folders that have none."""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from visionloop.engine.types import Sample, SampleDataset


class Subset(torch.utils.data.Dataset[Sample]):
    """The samples at some indices, numbered from 0: for `--overfit` and for calibration runs."""

    def __init__(self, dataset: SampleDataset, indices: Sequence[int] | NDArray[np.int64]) -> None:
        self.dataset, self.indices = dataset, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[int(self.indices[index])]

    def name(self, index: int) -> str:
        """Return the path of a sample, for messages."""
        return self.dataset.name(int(self.indices[index]))

    def fingerprint(self) -> str:
        """Return a text that changes when the samples do."""
        return f"{self.dataset.fingerprint()}/{len(self)}"


def evenly_spaced(num_samples: int, count: int) -> NDArray[np.int64]:
    """Choose at most `count` indices, int64 [n], spread: an index is often sorted by class."""
    return np.unique(np.linspace(0, num_samples - 1, min(count, num_samples)).round().astype(int))


def hash_split(
    names: Iterable[str], labels: Sequence[int] | NDArray[np.int64] | None, fraction: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divide samples into training and validation by the hash of their paths, stratified by label.

    Within a stratum the images with the smallest hash are set aside for validation, so the split
    does not depend on order, seed or machine. Every stratum of two or more images keeps at least
    one on each side.

    Args:
        names: relative paths.
        labels: the label of each path, or None for a single stratum.
        fraction: the share of the images for validation, in 0..1.

    Returns:
        Training and validation indices, int64, sorted.
    """
    names = list(names)
    hashes = np.array(
        [
            hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()
            for name in names
        ],
        dtype="S8",
    )
    labels = np.zeros(len(names), dtype=np.int64) if labels is None else np.asarray(labels)
    chosen = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        number = round(fraction * len(members))
        if len(members) > 1 and fraction > 0:
            number = min(max(number, 1), len(members) - 1)
        chosen.append(members[np.argsort(hashes[members], kind="stable")[:number]])
    val = np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, dtype=np.int64)
    return np.setdiff1d(np.arange(len(names)), val), val
