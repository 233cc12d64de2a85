"""Where the time and memory go: the run's clock and time_breakdown, and a profiler trace of a few steps."""

import time
from contextlib import contextmanager

import torch

from visionloop.engine.errors import UserError
from visionloop.engine.system.memory import peak_bytes

PARTS = ("compute", "data_wait", "logging", "evaluation", "checkpointing")


class Clock:
    """Wall seconds by part since the start. On CUDA the host's time: what the loop waits for."""

    def __init__(self, start_step=0):
        self.began = time.perf_counter()
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.last = dict.fromkeys(PARTS, 0.0)  # seconds of the last time alone
        self.busy = dict.fromkeys(PARTS, 0.0)  # seconds that this thread had a core
        self._marked = (0.0, 0.0, start_step)

    @contextmanager
    def measure(self, part):
        began, busy = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            self.busy[part] += time.thread_time() - busy
            self.last[part] = time.perf_counter() - began
            self.seconds[part] += self.last[part]

    def interval(self, step):
        """(milliseconds a step, share of them spent waiting for data) since the last call; evaluation and saves left out."""
        compute, wait, marked_step = self._marked
        spent, waited = self.seconds["compute"] - compute, self.seconds["data_wait"] - wait
        self._marked = (self.seconds["compute"], self.seconds["data_wait"], step)
        total = spent + waited
        return 1000 * total / max(1, step - marked_step), waited / total if total else 0.0

    def time_breakdown(self):
        """{part: {"seconds", "share"}}; "other" is start-up and what no part claims."""
        total = time.perf_counter() - self.began
        rows = self.seconds | {"other": max(0.0, total - sum(self.seconds.values()))}
        return {
            part: {"seconds": round(value, 3), "share": round(value / total, 4)}
            for part, value in rows.items()
        }


def peak_gib(device):
    """Peak memory in GiB: of the CUDA allocator, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return peak_bytes() / 2**30


class StepProfiler:
    """Traces `count` steps from step `start` on: a file for a trace viewer, and the top operators on the console."""

    def __init__(self, span, folder, world):
        self.span, self.folder, self.world, self._profiler = span, folder, world, None

    def at(self, step):
        """Called before each step and after the last."""
        if self.span is None:
            return
        start, count = self.span
        if step == start:
            activities = [torch.profiler.ProfilerActivity.CPU]
            if self.world.device.type == "cuda":
                activities.append(torch.profiler.ProfilerActivity.CUDA)
            self._profiler = torch.profiler.profile(activities=activities, record_shapes=True)
            self._profiler.start()
        elif step == start + count:
            self.finish()

    def finish(self):
        """Write the trace if one is being taken."""
        if self._profiler is None:
            return
        profiler, self._profiler = self._profiler, None
        profiler.stop()
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"trace_rank{self.world.rank}.json"
        profiler.export_chrome_trace(str(path))
        if self.world.is_main:
            order = (
                "self_cuda_time_total"
                if self.world.device.type == "cuda"
                else "self_cpu_time_total"
            )
            print(
                profiler.key_averages().table(sort_by=order, row_limit=15, max_name_column_width=50)
            )
            print(f"profile: {path} opens in chrome://tracing or ui.perfetto.dev", flush=True)


def parse_span(text):
    """ "10:5" -> (10, 5): first step and number of steps. Raises UserError."""
    try:
        start, count = (int(part) for part in text.split(":"))
    except ValueError:
        start, count = -1, 0
    if start < 0 or count < 1:
        raise UserError(
            f"--profile: expected START:COUNT, for instance 10:5, got {text!r}", field="profile"
        )
    return start, count
