"""Some samples of a data set."""

import numpy as np
import torch


class Subset(torch.utils.data.Dataset):
    """The samples at these indices, numbered anew: for --overfit, and for a rehearsal."""

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


def spread_evenly(num_samples, wanted):
    """Indices of at most so many samples, int64 [n]; spread, because an index is often sorted by class."""
    return np.unique(np.linspace(0, num_samples - 1, min(wanted, num_samples)).round().astype(int))
