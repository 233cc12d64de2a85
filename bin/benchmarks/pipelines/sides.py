"""What others do to make a batch, and the clock beside them."""

import random
import time
from importlib import import_module

import torch


class Pipeline:
    """make(indices) -> batch, timed. seconds: [of each batch so far]."""

    def __init__(self, make):
        self.make, self.seconds = make, []

    def take(self, indices, turn):
        """Make the batch of these samples under a seed of this turn. Returns it."""
        random.seed(turn)
        torch.manual_seed(turn)
        began = time.process_time()
        batch = self.make(indices)
        self.seconds.append(time.process_time() - began)
        return batch


def pipelines_of(task_name, task, dataset):
    """({name: Pipeline}, {name: what it does}) of a task: functions of data_<task>.py, which say what they make and what they leave out."""
    module = import_module(f"visionloop.bin.benchmarks.pipelines.{task_name}")
    makers = module.pipelines(task, dataset)
    return {name: Pipeline(make) for name, make in makers.items()}, {
        name: module.DOES[name] for name in makers
    }
