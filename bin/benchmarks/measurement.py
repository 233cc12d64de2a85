"""Clocks, interleaved rounds, ratios with intervals, and processes with a memory peak of their own.

Figures of one table are measured in turn within seconds of each other, so that a ratio compares
two implementations at the same moment of a noisy machine.
"""

import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import numpy as np

from visionloop.bin.benchmarks.tasks import STEADY, default_precision
from visionloop.engine.errors import USER_ERROR, UserError
from visionloop.engine.system.memory import peak_bytes

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
P = ParamSpec("P")
MIB = 2**20


def synchronized_time(device: "torch.device") -> float:
    """Return the clock in seconds once the device has finished its queued work."""
    import torch

    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()


def interleaved(cases: Iterable[T], repeats: int) -> Iterator[T]:
    """Yield every case once per round, with a progress bar of rounds: A B C, A B C, ..."""
    from tqdm import tqdm

    cases = list(cases)
    for _ in tqdm(range(repeats), desc="rounds", unit="round", disable=None, leave=False):
        yield from cases


def ratio_with_interval(
    numerators: Sequence[float], denominators: Sequence[float]
) -> tuple[float, tuple[float, float]]:
    """Return the median of numerators[i] / denominators[i] and its 95 % interval.

    The interval is a bootstrap over pairs; entry i of both was measured at the same moment.
    """
    ratios = [a / b for a, b in zip(numerators, denominators, strict=True)]
    generator = np.random.default_rng(0)
    medians = [np.median(generator.choice(ratios, len(ratios))) for _ in range(1000)]
    low, high = np.percentile(medians, [2.5, 97.5])
    return statistics.median(ratios), (float(low), float(high))


def median_ms(seconds: Iterable[float], digits: int = 2) -> float:
    """Return the median of seconds in milliseconds."""
    return round(1000 * statistics.median(seconds), digits)


def in_new_process(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return function(*args) as computed by a process forked after the imports of the tasks.

    Its peak of memory is its own: that of a spawned process begins at the peak of this one.
    """
    modules = [f"visionloop.tasks.{name}.task" for name in STEADY]
    multiprocessing.set_forkserver_preload([*modules, function.__module__])
    with ProcessPoolExecutor(1, multiprocessing.get_context("forkserver")) as process:
        return process.submit(function, *args, **kwargs).result()


def run_python(arguments: Sequence[str], folder: Path, title: str = "", **env: str) -> str:
    """Run this interpreter in a folder and return what it prints; env: variables of its own.

    Raises UserError with the last line of a user error, RuntimeError for any other failure.
    """
    # -P: a folder called datasets, as ours is, must not come before the package
    command = [sys.executable, "-P", *arguments]
    env = os.environ | {"HF_HUB_OFFLINE": "1"} | env
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    if done.returncode == USER_ERROR:
        line = done.stderr.strip().splitlines()[-1].removeprefix("error: ")
        raise UserError(f"{title}: {line}" if title else line)
    if done.returncode:
        raise RuntimeError(f"{title}: exit code {done.returncode}\n{done.stderr[-4000:]}")
    return done.stdout


def default_precisions(task_name: str, model: str, device: str | None) -> tuple[str, str]:
    """Return fp32 and the precision of `train`, without an import of torch in this process."""
    return "fp32", in_new_process(default_precision, task_name, model, device)


def resident_growth_mib(call: Callable[[], object]) -> float:
    """Return MiB by which a call raises the peak of this process's resident memory."""
    before = peak_bytes()
    call()
    return round((peak_bytes() - before) / MIB, 1)
