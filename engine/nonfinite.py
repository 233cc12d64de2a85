"""Steps whose gradient norm is not finite: counted on the device, read by the host only now and then."""

import shlex

import torch

from visionloop.engine.errors import UserError

CHECK_EVERY = 50  # the host reads the counter at log steps, and at least this often


class NonFiniteSteps:
    """Counts non-finite steps in a row and remembers the first of the row with its loss terms.

    A non-finite step changes no weight, moment, average or buffer (see step.py), so after a row of them
    the run still stands where it stood before the first.
    """

    def __init__(self, device):
        self.reported = 0
        self._in_row = torch.zeros((), device=device, dtype=torch.int64)
        self._total = torch.zeros((), device=device, dtype=torch.int64)
        self._first_step = torch.zeros((), device=device, dtype=torch.int64)
        self._first_losses = None
        self._names = []

    def record(self, bad, step, losses):
        """bad: 0/1 float tensor on the device; losses: {name: detached device scalar} of this rank. No host sync."""
        self._names = list(losses)
        terms = torch.stack([value.float() for value in losses.values()])
        is_bad = bad > 0
        starts = is_bad & (self._in_row == 0)
        self._first_step = torch.where(starts, step, self._first_step)
        self._first_losses = (
            terms if self._first_losses is None else torch.where(starts, terms, self._first_losses)
        )
        self._in_row = (self._in_row + 1) * is_bad
        self._total = self._total + is_bad

    def read(self):
        """(non-finite steps in a row now, non-finite steps not reported before, first step of the last row, its loss terms). One host sync."""
        if self._first_losses is None:
            return 0, 0, 0, {}
        in_row, total, first = torch.stack([self._in_row, self._total, self._first_step]).tolist()
        new, self.reported = total - self.reported, total
        return (
            in_row,
            new,
            first,
            dict(zip(self._names, self._first_losses.tolist(), strict=True)) if new else {},
        )


def check_nonfinite_steps(run, step):
    """Report non-finite steps since the last check. Returns the step the run stands at: `step`, or the start of a row that is too long.

    Then `run.failure` says why and the loop saves and ends. The numbers are the same on every rank.
    One host sync.
    """
    in_row, new, first, losses = run.nonfinite_steps.read()
    if not new:
        return step
    terms = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
    ids = run.data.order.sample_ids(first)
    names = ", ".join(run.data.dataset.name(index) for index in ids[:4])
    told = f"step {first + 1}: gradient norm not finite ({terms}); sample ids {ids}, first {names}"
    replay = replay_command(run, first + 1)
    run.log.warn(f"{new} step(s) skipped; {told}; to see that step: {replay}")
    if in_row < run.config.max_nonfinite_steps:
        return step
    hint = f"lower --lr, or look at that step: {replay}"
    run.failure = UserError(
        f"{in_row} non-finite steps in a row; {told}",
        code="nonfinite_steps",
        field="max_nonfinite_steps",
        hint=hint,
    )
    run.stopping = True
    return first


def replay_command(run, step):
    """What shows this step of the run, its images and its gradients, as a person types it. step: the first is 1, as in the log."""
    return f"python bin/{run.settings['task']}.py replay --run {shlex.quote(str(run.output))} --step {step}"
