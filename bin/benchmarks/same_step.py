"""One training step of a task, taken again and again on one batch, with any of its blocks recomputed."""

import time
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch.autograd.graph import saved_tensors_hooks

from visionloop.bin.benchmarks.tasks import build_steady
from visionloop.engine.config.options import build
from visionloop.engine.config.train_config import TrainConfig
from visionloop.engine.distributed import agree
from visionloop.engine.errors import UserError
from visionloop.engine.grad_checkpointing import apply_grad_checkpointing
from visionloop.engine.prepare import prepare_run, set_process
from visionloop.engine.step import train_step
from visionloop.engine.system.signals import StopFlag

MIB = 2**20


class SameStep:
    """The engine's own `train_step` at learning rate 0: forward, loss, backward, optimizer, and the weights stay what they are.

    cases: {name: blocks to recompute}, see cases_of. flags: settings of the run; output: a new
    folder for what a run writes.
    """

    def __init__(self, task_name, flags, output):
        output.mkdir()
        world, self.task, train_set, val, settings, facts = build_steady(
            task_name, {"steps": 100, **flags}
        )
        config = replace(build(TrainConfig, settings), lr=0.0, micro_batch=flags["batch_size"])
        set_process(config)
        self.run = prepare_run(
            self.task,
            config,
            world,
            train_set,
            val,
            output=output,
            settings=facts,
            start_step=0,
            evaluated_at=0,
            stop=StopFlag(),
        )
        self.device = world.device
        self.micro_batches = self.run.data.fetch(give_up=lambda: False)
        self.run.data.close()
        self.run.log.close()
        if self.micro_batches is None:
            error = self.run.data.error
            raise UserError(f"{error.name}: {error.why}", code="unreadable_sample", file=error.name)
        self.count = agree(
            world, self.task.count(self.micro_batches), self.task.count_names, stop=False
        ).count
        self.task.before_step(self.run.module, 0, config.steps)
        self.cases = cases_of(self.task.grad_checkpointing_blocks(self.run.module))

    def take(self, case):
        """One step; seconds."""
        with recomputed(self.cases[case]):
            began = self.clock()
            train_step(self.run, self.task, self.micro_batches, self.count, 0)
            return self.clock() - began

    def clock(self):
        """Seconds, once the device has done all it was given."""
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)
        return time.perf_counter()

    def gradients(self, case):
        """{parameter: gradient} as the optimizer gets them."""
        found = {}

        def note(optimizer, args, kwargs):
            found.update(
                (name, weight.grad.clone())
                for name, weight in self.run.module.named_parameters()
                if weight.grad is not None
            )

        handle = self.run.optimizer.register_step_pre_hook(note)
        self.take(case)
        handle.remove()
        return found

    def saved_mib(self, case):
        """What autograd keeps from the forward to the backward pass, besides weights, each storage once."""
        weights = {
            parameter.untyped_storage().data_ptr() for parameter in self.run.module.parameters()
        }
        kept = {}

        def keep(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with saved_tensors_hooks(keep, lambda tensor: tensor):
            self.take(case)
        return sum(kept.values()) / MIB

    def weights_mib(self):
        return sum(parameter.nbytes for parameter in self.run.module.parameters()) / MIB

    def held_mib(self):
        """What is held between two steps: weights, the optimizer's state and, when on, the average."""
        moments = [value for state in self.run.optimizer.state.values() for value in state.values()]
        averages = list(self.run.ema.tensors.values()) if self.run.ema else []
        return self.weights_mib() + sum(tensor.nbytes for tensor in moments + averages) / MIB

    def allocated_mib(self, case):
        """(most that CUDA's allocator held during a step, what it held before: weights, moments, batch)."""
        before = torch.cuda.memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        self.take(case)
        return torch.cuda.max_memory_allocated(self.device) / MIB, before / MIB


def cases_of(blocks):
    """{"none": [], "A": all blocks of the first class A, "A + B + ..": all blocks}. blocks: of Task.grad_checkpointing_blocks."""
    names = list(dict.fromkeys(type(block).__name__ for block in blocks))
    first = [block for block in blocks if type(block).__name__ == names[0]]
    return {"none": []} | ({names[0]: first, " + ".join(names): blocks} if blocks else {})


@contextmanager
def recomputed(blocks):
    """These modules recompute their forward in the backward pass, until the end of the block."""
    apply_grad_checkpointing(blocks)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward  # the class's own shows again


def largest_difference(first, second):
    """Of two {parameter: gradient}: the norm of the difference relative to the first's, of the parameter where it is largest."""
    assert first.keys() == second.keys(), "other parameters have a gradient"
    pairs = [(gradient.double(), second[name].double()) for name, gradient in first.items()]
    return max(float((a - b).norm() / a.norm().clamp(min=1e-30)) for a, b in pairs)
