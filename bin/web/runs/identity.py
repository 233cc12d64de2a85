"""Identity of a run: a short name for its folder."""

import hashlib
import os
from pathlib import Path

DIGITS = 16


def run_id(path: Path) -> str:
    """Return the id of a run: the first hex digits of the SHA-256 of its path, links resolved."""
    return hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:DIGITS]
