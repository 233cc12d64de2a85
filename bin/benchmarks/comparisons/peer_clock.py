"""When the steps of a run that is compared with ours were done."""

import torch

from visionloop.bin.benchmarks.comparisons.cases import WARM
from visionloop.bin.benchmarks.comparisons.runs import peak_name, rate
from visionloop.bin.benchmarks.processes import peak_resident
from visionloop.bin.benchmarks.turns import synchronised


class PeerClock:
    """Reads the clock after the steps between which a Case's rate is taken, and the most memory so far after the last one."""

    def __init__(self, case):
        self.case, self.device = case, torch.device(case.device)

    def step(self, done):
        """done: steps so far, this one included."""
        if done == WARM:
            self.began = synchronised(self.device)
        if done == self.case.steps:
            self.ended = synchronised(self.device)
            self.peak_mib = (
                torch.cuda.max_memory_allocated() / 2**20
                if self.device.type == "cuda"
                else peak_resident()
            )

    def figures(self):
        """{"samples_per_second", peak memory}."""
        seconds = self.ended - self.began
        return {
            "samples_per_second": rate(self.case, seconds),
            peak_name(self.device.type): round(self.peak_mib, 1),
        }
