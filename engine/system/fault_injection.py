"""Hook points for tests: where a kill or a full disk would hurt a checkpoint most.

Nothing happens at a hook point unless a test has armed it.
"""

from collections.abc import Callable
from pathlib import Path

POINTS = (
    "after open",
    "mid-write",
    "before the manifest",
    "before fsync",
    "before rename",
    "after rename",
)
_fault: Callable[[str, Path], None] | None = None


def arm(fault: Callable[[str, Path], None] | None) -> None:
    """Call fault(point, folder) at every hook point from now on, before the code behind it.

    None disarms all points.
    """
    global _fault
    _fault = fault


def reach(point: str, folder: Path) -> None:
    """Pass one of POINTS while `folder` is being written."""
    if _fault is not None:
        _fault(point, folder)
