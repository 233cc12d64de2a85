"""One training step of a task, repeated on one batch, with any of its blocks recomputed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.autograd.graph import saved_tensors_hooks

from visionloop.bin.benchmarks.measurement import MIB, resident_growth_mib, synchronized_time
from visionloop.bin.benchmarks.results import Row, Value
from visionloop.bin.benchmarks.tasks import build_steady_task, prepare_steady_run
from visionloop.engine.batch import Batch
from visionloop.engine.data.loader import TrainingData
from visionloop.engine.distributed import agree
from visionloop.engine.grad_checkpointing import apply_grad_checkpointing
from visionloop.engine.step import train_step

Gradients = dict[str, torch.Tensor]
Blocks = Sequence[torch.nn.Module]


class RepeatedStep:
    """The engine's own `train_step` at learning rate 0: weights stay, everything else is computed.

    flags: {setting: value} of the run; output: a new folder. cases: {name: blocks to recompute},
    see recomputation_cases.
    """

    def __init__(self, task_name: str, flags: Row, output: Path) -> None:
        built = build_steady_task(task_name, {"steps": 100, **flags})
        self.task, self.device = built.task, built.world.device
        self.run = prepare_steady_run(built, output, lr=0.0, micro_batch=flags["batch_size"])
        self.run.log.close()
        self.micro_batches = fetch(self.run.data)
        self.run.data.close()
        counts = self.task.count_normalizers(self.micro_batches)
        agreed = agree(built.world, counts, self.task.normalizer_names, stop=False)
        self.normalizers = agreed.normalizers
        self.task.before_step(self.run.module, 0, self.run.config.steps)
        self.cases = recomputation_cases(self.task.grad_checkpointing_blocks(self.run.module))

    def take(self, case: str) -> float:
        """Take one step and return its seconds."""
        with recomputed(self.cases[case]):
            began = self.clock()
            done = train_step(self.run, self.task, self.micro_batches, self.normalizers, 0)
            if done is None:
                raise MemoryError("out of memory: --batch-size or --micro-batch is too large")
            return self.clock() - began

    def clock(self) -> float:
        """Return seconds once the device has finished its queued work."""
        return synchronized_time(self.device)

    def gradients(self, case: str) -> Gradients:
        """Take one step and return {parameter: gradient} as the optimizer receives them."""
        gradients: Gradients = {}

        def copy_gradients(*_: Value) -> None:
            for name, parameter in self.run.module.named_parameters():
                if parameter.grad is not None:
                    gradients[name] = parameter.grad.clone()

        handle = self.run.optimizer.register_step_pre_hook(copy_gradients)
        self.take(case)
        handle.remove()
        return gradients

    def saved_mib(self, case: str) -> float:
        """Take one step; return MiB that autograd saves for backward, without weights."""
        with saved_storages(self.run.module) as sizes:
            self.take(case)
        return sum(sizes.values()) / MIB

    def weights_mib(self) -> float:
        return sum(parameter.nbytes for parameter in self.run.module.parameters()) / MIB

    def held_mib(self) -> float:
        """Return MiB held between two steps: weights, optimizer state and, when on, the EMA."""
        tensors = [value for state in self.run.optimizer.state.values() for value in state.values()]
        tensors += self.run.ema.tensors.values() if self.run.ema else []
        return self.weights_mib() + sum(tensor.nbytes for tensor in tensors) / MIB

    def allocated_mib(self, case: str) -> tuple[float, float]:
        """Take one step; return (peak, before) of CUDA's allocator in MiB."""
        before = torch.cuda.memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        self.take(case)
        return torch.cuda.max_memory_allocated(self.device) / MIB, before / MIB


def measure_resident_mib(task_name: str, flags: Row, case: str) -> float:
    """Return MiB by which three steps raise the peak of this process.

    The process has taken no step before; the optimizer's state exists before the first.
    """
    with TemporaryDirectory() as scratch:
        step = RepeatedStep(task_name, flags, Path(scratch) / "run")
    return resident_growth_mib(lambda: [step.take(case) for _ in range(3)])


def fetch(data: TrainingData) -> list[Batch]:
    """Return the micro-batches of the next step. Raises UserError for an unreadable sample."""
    batches = data.fetch(should_stop=lambda: False)
    if batches is None:
        assert data.error is not None  # nobody asked it to stop
        raise data.error.as_user_error()
    return batches


def recomputation_cases(blocks: Blocks) -> dict[str, Blocks]:
    """Return {name: blocks to recompute}: "none", the first class of blocks, all blocks.

    blocks: of Task.grad_checkpointing_blocks. Names are class names, joined by " + ".
    """
    names = list(dict.fromkeys(type(block).__name__ for block in blocks))
    cases: dict[str, Blocks] = {"none": []}
    if blocks:
        cases[names[0]] = [block for block in blocks if type(block).__name__ == names[0]]
        cases[" + ".join(names)] = blocks
    return cases


@contextmanager
def recomputed(blocks: Blocks) -> Iterator[None]:
    """Let these modules recompute their forward in the backward pass within the block."""
    apply_grad_checkpointing(blocks)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward  # the method of the class is used again


@contextmanager
def saved_storages(module: torch.nn.Module) -> Iterator[dict[int, int]]:
    """Yield {key: bytes} of the storages that autograd saves for backward, each counted once.

    module: whose weights are not counted.
    """
    # not the address of the contents, which a fake tensor does not have
    weights = {parameter.untyped_storage()._cdata for parameter in module.parameters()}
    sizes: dict[int, int] = {}
    storages = []  # held, or the key of one could be given to another

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            sizes[storage._cdata] = storage.nbytes()
            storages.append(storage)
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        yield sizes


def largest_difference(first: Gradients, second: Gradients) -> float:
    """Return the largest |a - b| / |a| over parameters, norms in float64."""
    assert first.keys() == second.keys(), "other parameters have a gradient"
    pairs = [(gradient.double(), second[name].double()) for name, gradient in first.items()]
    return max(float((a - b).norm() / a.norm().clamp(min=1e-30)) for a, b in pairs)
