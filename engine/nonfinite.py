"""Steps whose gradient norm is not finite: counted on the device, rarely read by the host."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch

from visionloop.engine.errors import UserError

if TYPE_CHECKING:
    from visionloop.engine.run import Run

CHECK_EVERY = 50  # the host reads the counter at log steps, and at least this often


class NonFiniteReport(NamedTuple):
    """Non-finite steps as the host reads them.

    Attributes:
        in_row: non-finite steps in a row up to now.
        new: non-finite steps that were not reported before.
        first_step: the first of the latest consecutive non-finite steps, 0-based.
        losses: {loss term: value} of that step, {} without new steps.
    """

    in_row: int
    new: int
    first_step: int
    losses: dict[str, float]


class NonFiniteSteps:
    """Counter of non-finite steps that keeps the first of consecutive ones with its loss terms.

    A non-finite step changes no weight, moment, EMA or buffer (see step.py), so after several in a
    row the state of the run is that before the first.
    """

    def __init__(self, device: torch.device) -> None:
        self.reported = 0
        self._in_row = torch.zeros((), device=device, dtype=torch.int64)
        self._total = torch.zeros((), device=device, dtype=torch.int64)
        self._first_step = torch.zeros((), device=device, dtype=torch.int64)
        self._first_losses: torch.Tensor | None = None
        self._names: list[str] = []

    def record(
        self, nonfinite: torch.Tensor, step: int, losses: Mapping[str, torch.Tensor]
    ) -> None:
        """Count a step; no host sync.

        Args:
            nonfinite: 0 or 1, a float scalar on the device.
            step: the step, 0-based.
            losses: {loss term: detached scalar on the device} of this rank.
        """
        self._names = list(losses)
        terms = torch.stack([value.float() for value in losses.values()])
        is_nonfinite = nonfinite > 0
        starts = is_nonfinite & (self._in_row == 0)
        self._first_step = torch.where(starts, step, self._first_step)
        self._first_losses = (
            terms if self._first_losses is None else torch.where(starts, terms, self._first_losses)
        )
        self._in_row = (self._in_row + 1) * is_nonfinite
        self._total = self._total + is_nonfinite

    def read(self) -> NonFiniteReport:
        """Copy the counters to the host; one host sync."""
        if self._first_losses is None:
            return NonFiniteReport(0, 0, 0, {})
        in_row, total, first = torch.stack([self._in_row, self._total, self._first_step]).tolist()
        new, self.reported = total - self.reported, total
        terms = zip(self._names, self._first_losses.tolist(), strict=True) if new else ()
        return NonFiniteReport(in_row, new, first, dict(terms))


def check_nonfinite_steps(run: Run) -> None:
    """Report non-finite steps since the last check. All ranks see the same numbers; one host sync.

    After --max-nonfinite-steps of them in a row the run is set back to the step before the first,
    `run.ending.failure` has the reason, and the loop saves and ends.
    """
    report = run.nonfinite_steps.read()
    if not report.new:
        return
    run.log.update_status(nonfinite_steps=run.nonfinite_steps.reported)
    terms = ", ".join(f"{name} {value:.4g}" for name, value in report.losses.items())
    ids = run.data.sampler.sample_ids(report.first_step)
    names = ", ".join(run.data.dataset.name(index) for index in ids[:4])
    step = report.first_step + 1  # as the log counts
    details = f"step {step}: gradient norm not finite ({terms}); sample ids {ids}, first {names}"
    replay = replay_command(run, step)
    run.log.warn(f"{report.new} step(s) skipped; {details}; to inspect that step: {replay}")
    if report.in_row < run.config.max_nonfinite_steps:
        return
    run.ending.failure = UserError(
        f"{report.in_row} non-finite steps in a row; {details}",
        code="nonfinite_steps",
        field="max_nonfinite_steps",
        hint=f"lower --lr, or inspect that step: {replay}",
    )
    run.ending.stopping = True
    run.state.step = report.first_step


def replay_command(run: Run, step: int) -> str:
    """Return the command that shows the images and gradients of a step, counted from 1."""
    program, folder = f"bin/{run.immutable_settings['task']}.py", shlex.quote(str(run.output))
    return f"python {program} replay --run {folder} --step {step}"
