"""Boxes on images as the dataset keeps them in memory, and how they are read from a COCO json.

The index is columnar, like that of the image folders: 860 thousand boxes cost about 50 bytes each,
once in each worker too.
"""

import os

import numpy as np

from visionloop.datasets.io.layout import is_hidden


def join_paths(names):
    """{paths, starts, stops} of an index. names: paths relative to the folder, as bytes."""
    lengths = np.fromiter(map(len, names), dtype=np.int64, count=len(names))
    stops = lengths.cumsum()
    return {"paths": b"".join(names), "starts": stops - lengths, "stops": stops}


def files_below(folder, suffixes):
    """{path relative to the folder: file size in bytes, -1 of a dangling link}, at any depth, sorted by path; without hidden names."""
    found, seen = {}, set()
    for level, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(level)
        if real in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not is_hidden(name)]
        for name in files:
            if name.lower().endswith(suffixes) and not is_hidden(name):
                path = os.path.join(level, name)
                found[os.path.relpath(path, folder)] = (
                    os.stat(path).st_size if os.path.exists(path) else -1
                )
    return dict(sorted(found.items()))
