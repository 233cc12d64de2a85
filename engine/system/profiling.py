"""Time and memory of a run: its clock, its time breakdown, and a profiler trace of a few steps."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from visionloop.engine.distributed import World
from visionloop.engine.errors import UserError
from visionloop.engine.system.memory import peak_bytes

PARTS = ("compute", "data_wait", "logging", "evaluation", "checkpointing")


class Clock:
    """Wall time by part since the start. On CUDA it is host time, which includes waits for the GPU.

    Attributes:
        seconds: {part: seconds} in total.
        last: {part: seconds} of the last measurement.
        busy: {part: seconds} of CPU time of this thread.
        step_seconds: seconds of a step in the last interval, 0 before its end.
    """

    def __init__(self, start_step: int = 0) -> None:
        self.began = time.perf_counter()
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.last = dict.fromkeys(PARTS, 0.0)
        self.busy = dict.fromkeys(PARTS, 0.0)
        self.step_seconds = 0.0
        self._marked = (0.0, 0.0, start_step)

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Add the time spent inside to a part."""
        began, busy = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            self.busy[part] += time.thread_time() - busy
            self.last[part] = time.perf_counter() - began
            self.seconds[part] += self.last[part]

    def interval(self, step: int) -> tuple[float, float]:
        """Return (milliseconds per step, share spent waiting for data) since the last call.

        Evaluation and checkpoints are left out. On CUDA call it when the losses of this step have
        been read: that waits for the device.
        """
        compute, wait, marked_step = self._marked
        spent, waited = self.seconds["compute"] - compute, self.seconds["data_wait"] - wait
        self._marked = (self.seconds["compute"], self.seconds["data_wait"], step)
        total = spent + waited
        self.step_seconds = total / max(1, step - marked_step)
        return 1000 * self.step_seconds, waited / total if total else 0.0

    def time_breakdown(self) -> dict[str, dict[str, float]]:
        """Return {part: {"seconds", "share"}}; "other" is all time outside the parts."""
        total = time.perf_counter() - self.began
        rows = self.seconds | {"other": max(0.0, total - sum(self.seconds.values()))}
        return {
            part: {"seconds": round(value, 3), "share": round(value / total, 4)}
            for part, value in rows.items()
        }


def peak_gib(device: torch.device) -> float:
    """Return the peak memory in GiB: of the CUDA allocator, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return peak_bytes() / 2**30


class StepProfiler:
    """Traces some steps with torch.profiler: a file for a trace viewer, the top operators printed.

    Args:
        span: (first step, number of steps), or None for no trace.
        folder: where the trace is written.
        world: each rank writes its own trace, the main rank prints.
    """

    def __init__(self, span: tuple[int, int] | None, folder: Path, world: World) -> None:
        self.span, self.folder, self.world = span, folder, world
        self._profiler: torch.profiler.profile | None = None

    def update(self, step: int) -> None:
        """Start or end the trace. Call it before each step and after the last."""
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

    def finish(self) -> None:
        """Write the trace, if one is being taken."""
        if self._profiler is None:
            return
        profiler, self._profiler = self._profiler, None
        profiler.stop()
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"trace_rank{self.world.rank}.json"
        profiler.export_chrome_trace(str(path))
        if self.world.is_main:
            kind = "cuda" if self.world.device.type == "cuda" else "cpu"
            table = profiler.key_averages().table(
                sort_by=f"self_{kind}_time_total", row_limit=15, max_name_column_width=50
            )
            print(table)
            print(f"profile: {path} opens in chrome://tracing or ui.perfetto.dev", flush=True)


def parse_span(text: str) -> tuple[int, int]:
    """Parse "10:5" as (10, 5), first step and number of steps. Raises UserError."""
    try:
        start, count = (int(part) for part in text.split(":"))
    except ValueError:
        start, count = -1, 0
    if start < 0 or count < 1:
        raise UserError(
            f"--profile: expected START:COUNT, for instance 10:5, got {text!r}", field="profile"
        )
    return start, count
