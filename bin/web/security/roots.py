"""Folders that the API may name: below the roots alone, with all links resolved."""

from collections.abc import Sequence
from pathlib import Path

from visionloop.bin.web.problems import Problem


def resolve_below(path: str, roots: Sequence[Path], field: str) -> Path:
    """Return the absolute path, with links resolved.

    Raises Problem (403, `outside_roots`) for a path outside all roots, links included; 422 for a
    text that is no path. The path need not exist.
    """
    if not path or "\0" in path:
        raise Problem(422, "bad_input", f"{field}: expected a path", field=field)
    try:
        resolved = Path(path).resolve() if path.startswith("/") else None
        candidates = [resolved] if resolved else [(root / path).resolve() for root in roots]
        below = [one for one in candidates if any(one.is_relative_to(root) for root in roots)]
        existing = [one for one in below if one.exists()]
    except (OSError, RuntimeError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not a path"
        raise Problem(422, "bad_input", f"{field}: {why}", field=field) from None
    if not below:
        names = ", ".join(map(str, roots)) or "none"
        raise Problem(
            403,
            "outside_roots",
            f"{field}: the path is outside the folders that this server may use ({names})",
            field=field,
            hint="start the server with another --data, --runs or --models folder",
        )
    return (existing or below)[0]
