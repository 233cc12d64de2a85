"""Places where being killed, or a full disk, would hurt most. Nothing happens there, unless a soak has armed them."""

POINTS = (
    "after open",
    "mid-write",
    "before the manifest",
    "before fsync",
    "before rename",
    "after rename",
)
_fault = None


def arm(fault):
    """fault(point, folder) is called at every point from now on, before what is named after it; None: no more."""
    global _fault
    _fault = fault


def reach(point, folder):
    """This process stands at one of POINTS, with `folder` being written."""
    if _fault is not None:
        _fault(point, folder)
