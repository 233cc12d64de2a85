"""The beginning of a start: anew, with the newest checkpoint of the run, or with one of another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from visionloop.engine.autotune.precision import stored_at_start
from visionloop.engine.branches.source import Branch, find_branch
from visionloop.engine.budget import read_budget
from visionloop.engine.checkpoints.folder import read_state
from visionloop.engine.checkpoints.start import find_start, wait_until_visible
from visionloop.engine.config.branch_point import DataOrigin, origin_of
from visionloop.engine.config.options import Settings
from visionloop.engine.distributed import World, broadcast_object
from visionloop.engine.logging.run_files import stored_settings
from visionloop.engine.types import JsonObject, SampleDataset


@dataclass(frozen=True)
class Beginning:
    """The checkpoint of a start, and what earlier starts have stored.

    Attributes:
        checkpoint: its folder, None for a new run.
        branch: where it is of another run.
        stored: settings.json of the run, or of the source of a branch; {} for a new run.
        budget: content of budget.json.
        state: state.json of the checkpoint.
    """

    checkpoint: Path | None = None
    branch: Branch | None = None
    stored: JsonObject = field(default_factory=dict)
    budget: JsonObject = field(default_factory=dict)
    state: JsonObject | None = None

    def data_origin(self, train_set: SampleDataset, settings: Settings) -> DataOrigin:
        """Return where the samples of the run begin."""
        if self.branch is None or self.state is None:
            return origin_of(self.state or {})
        batch_size, seed = settings["batch_size"].value, settings["seed"].value
        return self.branch.data_origin(self.state, train_set, batch_size, seed)


def find_beginning(
    settings: Settings, world: World, output: Path, report: Callable[[str], object]
) -> Beginning:
    """Find the checkpoint that a start begins with. All ranks.

    Args:
        settings: of the command line.
        world: the processes of the run.
        output: the folder of the run.
        report: prints a line, on the main rank.

    Raises:
        UserError: --resume or --branch is no valid checkpoint.
    """
    begin = Beginning()
    if world.is_main:
        begin = Beginning(
            checkpoint=find_start(output, settings["resume"].value, report),
            stored=stored_settings(output),
            budget=read_budget(output),
        )
        if branch := find_branch(settings, output, begin.checkpoint):
            stored = stored_settings(branch.run)
            begin = Beginning(branch.checkpoint, branch, stored, begin.budget)
    begin = broadcast_object(world, begin)
    if begin.checkpoint is None:
        return replace(begin, stored={})
    wait_until_visible(world, begin.checkpoint)
    state = read_state(begin.checkpoint)
    return replace(begin, state=state, stored=stored_at_start(begin.stored, state))
