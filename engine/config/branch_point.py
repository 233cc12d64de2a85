"""The place that a run branches from: `--branch RUN@STEP`. No torch here."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from visionloop.engine.errors import UserError

if TYPE_CHECKING:
    from visionloop.engine.types import JsonObject

NEWEST, BEST = "newest", "best"


class BranchPoint(NamedTuple):
    """A run, and the step of a checkpoint in it: a number, BEST or NEWEST."""

    run: Path
    at: int | str


class DataOrigin(NamedTuple):
    """A step, and the place of its first sample in the endless sequence of epochs.

    The places before and after follow from the batch size. Another one than START is that of a
    branch whose data or batch size differ from those of its source.
    """

    step: int
    sample: int


START = DataOrigin(0, 0)


def origin_of(state: "JsonObject") -> DataOrigin:
    """Read the DataOrigin of a state.json."""
    return DataOrigin(*state.get("data_origin", START))


def parse_branch(text: str) -> BranchPoint:
    """Parse RUN@STEP, RUN@best or RUN, the folder of a run.

    Raises:
        UserError: what follows the @ is neither a step nor best.
    """
    name, sign, at = text.rpartition("@")
    if not sign or Path(text).is_dir():
        return BranchPoint(Path(text), NEWEST)
    if at == BEST:
        return BranchPoint(Path(name), BEST)
    if not at.isdecimal():
        raise UserError(
            f"--branch {text}: expected RUN@STEP, RUN@best or RUN, got {at!r} after the @",
            field="branch",
        )
    return BranchPoint(Path(name), int(at))


def branch_folder(text: str, extend: float | None) -> Path:
    """Return the default folder of a branch, beside that of its source.

    text: of --branch; extend: of --extend.
    """
    run, at = parse_branch(text)
    ending = "" if extend is None else f"-extend-{extend:g}"
    if at != NEWEST or extend is None:
        ending = f"-branch-{at}{ending}"
    return run.with_name(f"{run.name}{ending}")
