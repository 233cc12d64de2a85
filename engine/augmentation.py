"""The user's own augmentation of `--augment FILE.py:NAME`, as the engine knows it.

The dataset of a task applies it (datasets/augmentation/) and has it as attribute `user_function`.
Here is its place in a run: its text is part of the settings that must not change, and a copy of it
is in the folder of the run.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from visionloop.engine.errors import UserError
from visionloop.engine.types import SampleDataset

COPY = "augment.py"  # in the folder of a run
FACT = "augment_fingerprint"  # among the settings that must not change


class Augmentation(Protocol):
    """A function of the user. It can be pickled.

    Attributes:
        spec: FILE.py:NAME.
        name: of the function.
        text: of the file, which was read once.
        records: set `digests` at each call.
        digests: {part of the sample: digest of what the function returned for it}.
    """

    spec: str
    name: str
    text: str
    records: bool
    digests: dict[str, str]

    def fingerprint(self) -> str:
        """Return the name of the function and the SHA-256 of the text."""

    def forget(self) -> None:
        """Load the function anew at its next call."""


def augmentation_of(dataset: SampleDataset) -> Augmentation | None:
    """Return the function that a dataset, or the one that it is a subset of, applies; else None."""
    while hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    function: Augmentation | None = getattr(dataset, "user_function", None)
    return function


def augmentation_fact(
    dataset: SampleDataset, spec: str | None, task: str, *, only: bool
) -> dict[str, str]:
    """Return {FACT: text} of a training set with a function, {} without one.

    Args:
        dataset: the training set.
        spec: `--augment`.
        task: name of the task.
        only: `--augment-only`.

    Raises:
        UserError: the task has no place for a function, or `--augment-only` stands alone.
    """
    function = augmentation_of(dataset)
    if only and not spec:
        why = "needs --augment FILE.py:NAME, which it leaves alone"
        raise UserError(f"--augment-only: {why}", field="augment_only")
    if function is None:
        if spec:
            why = f"{task} does not apply a function of yours"
            raise UserError(f"--augment {spec}: {why}", field="augment")
        return {}
    return {FACT: function.fingerprint() + (", only" if only else "")}


def require_same_augmentation(
    old: Mapping[str, object], new: Mapping[str, object], spec: str | None, checkpoint: Path
) -> None:
    """Raise UserError where a run would resume with another function than it began with.

    Args:
        old: the settings in the checkpoint that must not change.
        new: those of this command.
        spec: `--augment` of this command.
        checkpoint: folder that the run resumes from, below that of its run.
    """
    before, now = (str(facts.get(FACT) or "") for facts in (old, new))
    if before == now:
        return
    copy = checkpoint.parent.parent / COPY
    name = before.split(" ")[0]
    hint = f"resume with --augment {copy}:{name}, or start another run with --output"
    if not now:
        why = f"the run in {checkpoint} has one, this command has none"
    elif not before:
        why = f"the run in {checkpoint} began without one"
        hint = "resume without it, or start another run with --output"
    elif before.removesuffix(", only") == now.removesuffix(", only"):
        why = f"the run in {checkpoint} began {'without' if now.endswith('only') else 'with'} "
        why += "--augment-only"
        hint = "a resumed run keeps it"
    elif name != now.split(" ")[0]:
        why = f"the run in {checkpoint} began with the function {name}"
    else:
        why = f"the file has changed since the run in {checkpoint} began with it"
    given = f" {spec}" if spec else ""
    raise UserError(
        f"--augment{given}: {why}; {hint}",
        code="changed_augment",
        field="augment",
        file=spec.rpartition(":")[0] if spec else None,
        hint=hint,
    )


def copy_in(run: Path, spec: str | None) -> str | None:
    """Return FILE.py:NAME of a run's own copy of the file of its `--augment`; None without one."""
    return f"{run / COPY}:{spec.rpartition(':')[2]}" if spec else None
