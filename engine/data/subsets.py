"""Some samples of a dataset."""

import hashlib

import numpy as np
import torch


class Subset(torch.utils.data.Dataset):
    """The samples at these indices, numbered anew: for --overfit, and for a calibration."""

    def __init__(self, dataset, indices):
        self.dataset, self.indices = dataset, indices

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, index):
        return self.dataset[int(self.indices[index])]

    def name(self, index):
        return self.dataset.name(int(self.indices[index]))

    def fingerprint(self):
        return f"{self.dataset.fingerprint()}/{len(self)}"


def evenly_spaced(num_samples, wanted):
    """Indices of at most so many samples, int64 [n]; spread, because an index is often sorted by class."""
    return np.unique(np.linspace(0, num_samples - 1, min(wanted, num_samples)).round().astype(int))


# A validation split for folders that have none.


def hash_split(names, labels, fraction):
    """(train indices, val indices), int64, sorted. Stratified by label (labels None: one stratum).

    names: relative paths. Within a stratum the images with the smallest hash of their path are
    set aside, so that the split does not depend on order, seed or machine. Every stratum of two or
    more keeps one image on each side.
    """
    names = list(names)
    keys = np.array(
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
        chosen.append(members[np.argsort(keys[members], kind="stable")[:number]])
    val = np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, dtype=np.int64)
    return np.setdiff1d(np.arange(len(names)), val), val
