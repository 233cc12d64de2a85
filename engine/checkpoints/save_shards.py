"""Saving a checkpoint of a sharded run: each rank writes its rows, the main rank completes it.

The folder of the step holds, in place of model.safetensors, optimizer.safetensors and
ema.safetensors, the files of each shard (see stored_tensors.py), and extra.safetensors with what
`Task.save` adds to the weights. A rank announces its files, with their hashes, in a part file. The
main rank waits for all of them, writes best/ from the shards if this step has the best score, and
then the manifest, and renames the folder. A rank that dies leaves a folder that is never renamed.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from visionloop.engine.checkpoints.consolidate import EXTRA
from visionloop.engine.checkpoints.files import fsync, replace_file, write_json
from visionloop.engine.checkpoints.folder import prune, step_folder_name, write_folder
from visionloop.engine.checkpoints.manifest import Files, describe_file
from visionloop.engine.checkpoints.stored_tensors import (
    Rows,
    StoredTensors,
    save_rows,
    shard_file,
)
from visionloop.engine.checkpoints.weight_files import WEIGHTS_FILE, write_weights
from visionloop.engine.checkpoints.writer import HostBuffers, copy_to_host, load_tensors
from visionloop.engine.distributed import gather_objects
from visionloop.engine.ema import named_state
from visionloop.engine.optim import state_by_name
from visionloop.engine.system.fault_injection import reach
from visionloop.engine.task import Task
from visionloop.engine.tensors import is_sharded_tensor, local, row_range
from visionloop.engine.types import JsonObject

if TYPE_CHECKING:
    from visionloop.engine.run import Run

POLL_SECONDS = 0.05


class PartMissing(RuntimeError):
    """Another rank has not written its shard."""


def start_sharded_write(
    run: Run, task: Task, state: JsonObject, *, waits: bool
) -> Exception | None:
    """Start the write of this rank's shard; the main rank's completes the checkpoint. All ranks.

    Args:
        run: the run.
        task: its task.
        state: the content of state.json.
        waits: wait for the write.

    Returns:
        The error on this rank of this write or the one before. All ranks return before they write
        when one has an error.
    """
    failed, error = wait_for_write(run)
    if failed:
        return error
    folder = run.checkpoints / f".{step_folder_name(run.state.step)}.writing"
    if run.world.is_main:
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        except OSError as why:
            error = why
    if any(gather_objects(run.world, error is not None)):
        return error
    run.writer.start(prepare_shard(run, task, state, folder))
    return wait_for_write(run)[1] if waits else None


def wait_for_write(run: Run) -> tuple[bool, Exception | None]:
    """Wait for the write in flight on all ranks. All ranks.

    The main rank's waits for those of the others, so theirs are looked at first.

    Returns:
        (a rank has an error, the same on all ranks; that of this rank).

    Raises:
        PartMissing: another rank did not write its shard in time.
    """
    error = None if run.world.is_main else error_of_write(run)
    others_failed = any(gather_objects(run.world, error is not None))
    if run.world.is_main:
        if others_failed:
            run.writer.cancel()
        error = error_of_write(run)
        if isinstance(error, PartMissing):
            if not others_failed:
                raise error
            error = None  # theirs is the reason
    main_failed = any(gather_objects(run.world, run.world.is_main and error is not None))
    if main_failed and not run.world.is_main and is_missing_file(error):
        error = None  # the main rank removed the folder: its error is the reason
    return others_failed or main_failed, error


def is_missing_file(error: Exception | None) -> bool:
    """Return True for the error of a file that is gone. safetensors has no type for it."""
    return isinstance(error, FileNotFoundError) or "(os error 2)" in str(error)


def error_of_write(run: Run) -> Exception | None:
    """Wait for this rank's write in flight and return its error, if it has one."""
    try:
        run.writer.wait()
    except Exception as error:
        return error
    return None


def prepare_shard(run: Run, task: Task, state: JsonObject, folder: Path) -> Callable[[], None]:
    """Copy this rank's rows to the host; return a function that writes them into `folder`.

    All ranks. Only those of the first copy of the model write; the main rank writes all the rest.
    """
    sharding = run.sharding
    assert sharding is not None, "only sharded runs have shards"
    if not sharding.is_writer:
        return lambda: None
    buffers, index = run.writer.buffers, sharding.shard_index
    if buffers:
        buffers.rewind()  # the write before is over
    kinds = {"weights": named_state(run.module)}
    kinds["optimizer"] = state_by_name(run.optimizer, run.module)
    if run.ema:
        kinds["ema"] = run.ema.tensors
    rows = {kind: rows_on_host(tensors, buffers, index) for kind, tensors in kinds.items()}
    shard = ShardWrite(folder, index, sharding.num_shards, rows)
    if not run.world.is_main:
        return shard
    return CheckpointWrite(
        shard=shard,
        task=task,
        module=shallow_copy(run.module),  # a task may write plain attributes: those of this moment
        state=state,
        output=run.output,
        checkpoints=run.checkpoints,
        keep=run.config.keep,
        keep_every=run.config.keep_every,
        timeout=run.config.process_timeout,
        cancelled=run.writer.cancelled,
    )


@dataclass(frozen=True)
class ShardWrite:
    """The write of one shard; nothing of it changes while training goes on.

    Attributes:
        folder: of the checkpoint, under its temporary name.
        index: of the shard.
        count: number of shards.
        rows: {kind: {name: rows in host memory}}.
    """

    folder: Path
    index: int
    count: int
    rows: Mapping[str, Mapping[str, Rows]]

    def __call__(self) -> None:
        """Write the files of the shard, then announce them."""
        files: Files = {}
        for kind, part in self.rows.items():
            path = self.folder / shard_file(kind, self.index, self.count)
            save_rows(path, part)
            reach("mid-write", self.folder)
            fsync(path)
            files[path.name] = describe_file(path)
        replace_file(part_file(self.folder, self.index), json.dumps(files), durable=True)


@dataclass(frozen=True)
class CheckpointWrite:
    """The write of the main rank: its shard, and what completes the checkpoint.

    Attributes:
        shard: that of this rank.
        task, module: write the files besides the weights.
        state: the content of state.json.
        output, checkpoints: the folder of the run, and that of its checkpoints.
        keep, keep_every: how many checkpoints are kept, see `prune`.
        timeout: seconds to wait for the other shards.
        cancelled: returns True when they will not come.
    """

    shard: ShardWrite
    task: Task
    module: nn.Module
    state: JsonObject
    output: Path
    checkpoints: Path
    keep: int
    keep_every: int
    timeout: float
    cancelled: Callable[[], bool]

    def __call__(self) -> None:
        """Write the checkpoint, and best/ before it becomes visible; remove older ones."""
        step, best = self.state["step"], self.state["best"]
        write_folder(self.checkpoints / step_folder_name(step), self._fill, is_prepared=True)
        best_step = best["step"] if best else None
        prune(self.checkpoints, self.keep, best_step, newest=step, keep_every=self.keep_every)

    def _fill(self, folder: Path) -> Files:
        self.shard()
        write_without_weights(self.task, self.module, folder)
        write_json(folder / "state.json", self.state)
        files = wait_for_parts(folder, self.shard.count, self.timeout, self.cancelled)
        best = self.state["best"]
        # so that it is never older than the best score in state.json
        if best is not None and best["step"] == self.state["step"]:
            write_folder(self.output / "best", partial(self._fill_best, checkpoint=folder))
        return files

    def _fill_best(self, folder: Path, *, checkpoint: Path) -> None:
        kind, scores = (
            "ema" if "ema" in self.shard.rows else "weights",
            self.state["best"]["scores"],
        )
        with StoredTensors(checkpoint, kind) as stored:
            if self.task.converts_best:
                self.task.save_best(self.module, dict(stored), folder, scores)
                return
            self.task.save_best(self.module, {}, folder, scores)
            add_weights(folder, stored)


def shallow_copy(module: nn.Module) -> nn.Module:
    """Return a copy of a sharded module that shares its content, of the class that it had before.

    copy.copy would call the constructor of that class without arguments.
    """
    original: type[nn.Module] = type(module).__mro__[2]  # after FSDP... and FSDPModule
    copied = object.__new__(original)
    copied.__dict__.update(module.__dict__)
    return copied


def rows_on_host(
    tensors: Mapping[str, torch.Tensor], buffers: HostBuffers | None, index: int
) -> dict[str, Rows]:
    """Copy this rank's rows to host memory; what is not sharded belongs to shard 0."""
    own = {}
    for name, tensor in tensors.items():
        first, stop = row_range(tensor)
        if first < stop if is_sharded_tensor(tensor) else not index:
            own[name] = (first, tensor)
    copies = copy_to_host({name: local(tensor) for name, (_, tensor) in own.items()}, buffers)
    return {
        name: Rows(copies[name], first, tuple(tensor.shape))
        for name, (first, tensor) in own.items()
    }


def part_file(folder: Path, index: int) -> Path:
    """Return the file in which a rank announces what it has written."""
    return folder / f"part-{index + 1:05d}.json"


def wait_for_parts(
    folder: Path, count: int, timeout: float, cancelled: Callable[[], bool]
) -> Files:
    """Wait until all shards are announced; return their files and remove the announcements.

    Raises:
        PartMissing: one was not, after `timeout` seconds or when the write is cancelled.
    """
    deadline = time.monotonic() + timeout
    missing = [part_file(folder, index) for index in range(count)]
    files: Files = {}
    while missing:
        for path in [path for path in missing if path.exists()]:
            files |= json.loads(path.read_text())
            missing.remove(path)
        if missing and (cancelled() or time.monotonic() > deadline):
            raise PartMissing(f"Timed out waiting for {missing[0].name} of another process")
        if missing:
            time.sleep(POLL_SECONDS)
    for index in range(count):
        part_file(folder, index).unlink()
    return files


def write_without_weights(task: Task, module: torch.nn.Module, folder: Path) -> None:
    """Write what `Task.save` writes besides the weights; tensors that it adds, as EXTRA."""
    task.save(module, {}, folder)
    path = folder / WEIGHTS_FILE
    if path.exists() and load_tensors(path):
        path.rename(folder / EXTRA)
    else:
        path.unlink(missing_ok=True)


def add_weights(target: Path, stored: StoredTensors) -> None:
    """Write the weights of a sharded checkpoint into a folder that was saved without."""
    path = target / WEIGHTS_FILE
    extra = load_tensors(path) if path.exists() else {}
    write_weights(target, ChainMap(extra, stored))  # type: ignore[arg-type]  # only read
