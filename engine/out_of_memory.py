"""Out of memory in a training step: the micro-batch is halved, and the step is done again.

The losses of a step are sums divided by the counts of the whole step, so smaller micro-batches give
the same step; the model's noise and BatchNorm statistics alone follow them. The halving is on the
disk, in micro_batches.json of the run's folder, before the step is done again: a run that is killed
and resumed replays it at the same step.

A step is done again in this process while no weight has changed and no other rank waits for this
one. Otherwise nothing is saved, the process ends with exit code 75, and the same command resumes
from the newest checkpoint, with the smaller micro-batch from that step on.
"""

from __future__ import annotations

import contextlib
import gc
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import torch

from visionloop.engine.checkpoints.files import replace_file
from visionloop.engine.data.micro_batches import Halving, MicroBatchPlan, longest
from visionloop.engine.distributed import PeerOutOfMemory, sum_in_step
from visionloop.engine.errors import RunAgain, UserError
from visionloop.engine.system.memory import is_out_of_memory, release_memory

if TYPE_CHECKING:
    from visionloop.engine.run import Run

RECORD = "micro_batches.json"  # in the folder of the run
SMALLER = (
    "start with --grad-checkpointing, or on several GPUs with --shard full, or another run with a "
    "smaller --image-size or --model"
)


class OutOfMemoryGuard:
    """A context of a training step that ends quietly when a rank has no memory for it.

    Attributes:
        failed: some rank had no memory; no weight has changed, and all ranks know.
    """

    def __init__(self, run: Run, step: int, num_micro_batches: int) -> None:
        self._run, self._step, self._num_micro_batches = run, step, num_micro_batches
        # in every forward SyncBatchNorm and sharded weights wait for the other ranks
        self._can_repeat = run.sharding is None and (run.world.size == 1 or not run.config.sync_bn)
        self.failed = False

    def before_last_micro_batch(self) -> None:
        """Wait until all ranks are here: in the next backward they wait for each other. All ranks.

        A rank that has failed before is known from here on. Where there is one micro-batch, all
        have agreed on the step a moment ago.
        """
        if self._num_micro_batches > 1:
            sum_in_step(self._run.world, ())
        self._can_repeat = self._can_repeat and self._run.world.size == 1

    def before_update(self) -> None:
        """Note that weights and optimizer state may be half changed from here on."""
        self._can_repeat = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> bool:
        if isinstance(error, PeerOutOfMemory):
            self.failed = True
        elif error is not None and is_out_of_memory(error):
            if not self._can_repeat:
                raise end_and_halve(self._run, self._step) from error
            with contextlib.suppress(PeerOutOfMemory):  # raised on this rank too
                sum_in_step(self._run.world, (), failed=True)
            self.failed = True
        return self.failed


def undo_step(run: Run, buffers: Sequence[torch.Tensor]) -> None:
    """Undo the forwards and backwards of a step that failed before the update of the weights.

    Args:
        run: the run.
        buffers: copies of `run.trained_buffers` from before the step.
    """
    for buffer, before in zip(run.trained_buffers, buffers, strict=True):
        buffer.copy_(before)
    run.optimizer.zero_grad(set_to_none=True)
    gc.collect()
    release_memory(run.world.device)


def halve_micro_batch(run: Run) -> None:
    """Record half the micro-batch from the step in progress on, and fetch that step again.

    All ranks. Where the micro-batch cannot be smaller, `run.ending.failure` says so and the loop
    saves and ends.

    Raises:
        RunAgain: there is no memory to fetch it.
    """
    step, plan = run.state.step, run.data.plan
    smaller = plan.halved_at(step)
    if smaller is None:
        run.ending.failure = no_memory(plan, step)
        return
    if run.world.is_main:
        write_halvings(run.output, smaller.halvings)
    try:
        run.data.restart(step, smaller)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise run_again(smaller.halvings[-1]) from error


def end_and_halve(run: Run, step: int) -> UserError:
    """Record half the micro-batch from a step on; return the error to end with. On any rank."""
    plan = run.data.plan
    smaller = plan.halved_at(step)
    if smaller is None:
        return no_memory(plan, step)
    write_halvings(run.output, smaller.halvings)
    return run_again(smaller.halvings[-1])


def run_again(halving: Halving) -> RunAgain:
    """Return the error of a step that only another start can do again."""
    return RunAgain(
        f"out of memory in step {halving.step + 1} with micro-batches of {halving.before}, too "
        "late to repeat it in this process; the same command resumes from the newest checkpoint, "
        f"with micro-batches of {halving.micro_batch} from that step on",
        code="out_of_memory",
    )


def no_memory(plan: MicroBatchPlan, step: int) -> UserError:
    """Return the error of a step whose micro-batches cannot be smaller."""
    size = longest(plan.ranges(step))
    samples = "one sample" if size == 1 else f"{size} samples"
    return UserError(
        f"out of memory in step {step + 1} with micro-batches of {samples}, the fewest that this "
        f"training can have; {SMALLER}",
        code="no_memory",
        field="micro_batch",
        hint=SMALLER,
    )


def write_halvings(output: Path, halvings: Sequence[Halving]) -> None:
    """Write micro_batches.json and wait until it is on the disk."""
    content = {"schema": 1, "halvings": [asdict(halving) for halving in halvings]}
    replace_file(output / RECORD, json.dumps(content, indent=1) + "\n", durable=True)


def read_halvings(output: Path) -> tuple[Halving, ...]:
    """Read the micro_batches.json of a run's folder; () where there is none.

    Raises:
        UserError: it cannot be understood.
    """
    path = output / RECORD
    try:
        rows = json.loads(path.read_text())["halvings"]
        halvings = tuple(
            Halving(int(row["step"]), int(row["before"]), int(row["micro_batch"])) for row in rows
        )
        if any(halving.step < 0 or halving.micro_batch < 1 for halving in halvings):
            raise ValueError("a number is too small")
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: expected the steps at which the micro-batch was halved ({error}); without "
            "the file the run starts with --micro-batch again",
            code="bad_record",
            file=str(path),
        ) from None
    return halvings


def carry_halvings(source: Path, target: Path) -> None:
    """Let a run begin with the smallest micro-batch of its calibration run.

    Args:
        source: the folder of the calibration run.
        target: the folder of the run.
    """
    halvings = read_halvings(source)
    if halvings:
        last = Halving(0, halvings[0].before, min(one.micro_batch for one in halvings))
        write_halvings(target, [last])
