"""A validation split for folders that have none."""

import hashlib

import numpy as np


def hash_split(names, labels, fraction):
    """(train indices, val indices), int64, sorted. Stratified by label (labels None: one stratum).

    names: relative paths. Within a stratum the pictures with the smallest hash of their path are set aside, so that the
    split does not depend on order, seed or machine. Every stratum of two or more keeps one picture on each side.
    """
    names = list(names)
    keys = np.array([hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest() for name in names], dtype="S8")
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
