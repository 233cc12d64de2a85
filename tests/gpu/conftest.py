"""Devices, data and the report of the tests that run on a GPU."""

import shutil
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path

import pytest
import torch
from device_task import TASKS, write_data

from visionloop.engine.determinism import deterministic_algorithms

TASK = "gpu task"  # property of a test in the GPU report: its task, "" without one
PACKAGES = ("visionloop", "torch", "torchvision", "transformers")
# quick and decisive tests first: what --gpu-minutes leaves out is at the end
ORDER = ("numerics", "sharding", "limits", "memory", "processes", "determinism", "scores", "runs")
ORDER += ("sizes",)
BEGAN = time.monotonic()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the tests that need a GPU by ORDER; skip those whose device this machine lacks."""
    places = [i for i, item in enumerate(items) if item.get_closest_marker("gpu")]
    ordered = sorted((items[i] for i in places), key=place_in_order)
    for i, item in zip(places, ordered, strict=True):
        items[i] = item
        is_metal = parameter_of(item, "device") == "mps"
        if is_metal and not torch.backends.mps.is_available():
            item.add_marker(pytest.mark.skip(reason="no Metal device"))
        if not is_metal and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device is visible"))


def place_in_order(item: pytest.Item) -> int:
    return ORDER.index(item.path.stem.removeprefix("test_gpu_"))


def parameter_of(item: pytest.Item, name: str) -> str:
    """Return the value of a test's parameter, "" where it has none of this name."""
    return item.callspec.params.get(name, "") if hasattr(item, "callspec") else ""


@pytest.fixture(autouse=True)
def restored_settings(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leave torch's process-wide switches as they were; name the tests of the GPU report."""
    if request.node.get_closest_marker("gpu"):
        request.node.user_properties.append((TASK, parameter_of(request.node, "task_name")))
        minutes = request.config.getoption("--gpu-minutes")
        if minutes is not None and time.monotonic() - BEGAN > 60 * minutes:
            pytest.skip(f"--gpu-minutes {minutes:g} are over")
    precision, tf32 = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    threads = torch.get_num_threads()
    with deterministic_algorithms(False):
        yield
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = tf32
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def data_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """data_of(task_name) -> the folder of the task's sample data, written once."""
    folder = tmp_path_factory.mktemp("sample-data")
    return lambda task_name: write_data(folder, task_name)


@pytest.fixture
def record(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """record(name=value, ...) adds figures to the line of this test in the GPU report."""

    def add(**figures: object) -> None:
        for name, value in figures.items():
            record_property(name, f"{value:.3g}" if isinstance(value, float) else value)

    return add


def describe_device() -> dict[str, object]:
    """Return {name: value} of the packages, the driver and the devices of this machine."""
    machine: dict[str, object] = {name: metadata.version(name) for name in PACKAGES}
    if not torch.cuda.is_available():
        return machine
    properties = torch.cuda.get_device_properties(0)
    machine |= {
        "device": f"{torch.cuda.device_count()} x {properties.name}",
        "memory": f"{properties.total_memory / 2**30:.1f} GiB",
        "compute capability": f"{properties.major}.{properties.minor}",
        "CUDA": torch.version.cuda,
        "cuDNN": torch.backends.cudnn.version(),
        "NCCL": ".".join(map(str, torch.cuda.nccl.version())),
    }
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        result = subprocess.run(query, capture_output=True, text=True, check=False)
        machine["driver"] = result.stdout.partition("\n")[0]
    return machine


def report_lines(reports: Sequence[pytest.TestReport]) -> Iterator[str]:
    """Yield the lines of a markdown page: the machine, figures by task, and tests."""
    yield from (f"- {name}: {value}" for name, value in describe_device().items())
    results = [report.outcome for report in reports]
    counts = ", ".join(f"{results.count(name)} {name}" for name in sorted(set(results)))
    yield f"- tests: {counts} in {time.monotonic() - BEGAN:.0f} s"
    yield ""
    rows = list(task_rows(reports))
    if rows:
        yield from table_lines(("figure", *TASKS), rows)
        yield ""
    yield from table_lines(("test", "result", "seconds", "figures"), map(row_of, reports))


def table_lines(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a markdown table."""
    yield "| " + " | ".join(heading) + " |"
    yield "|" + "---|" * len(heading)
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


def task_rows(reports: Sequence[pytest.TestReport]) -> Iterator[Sequence[str]]:
    """Yield a row for each figure of the tests of a task: its name, its value for each task."""
    rows: dict[str, dict[str, str]] = defaultdict(dict)
    for report in reports:
        task, figures = figures_of(report)
        for name, value in figures.items() if task else ():
            rows[name][task] = value
    for name, values in rows.items():
        yield name.replace("_", " "), *(values.get(task, "") for task in TASKS)


def row_of(report: pytest.TestReport) -> Sequence[str]:
    """Return the row of a test: name, result with its reason, seconds, figures without a task."""
    result = report.outcome
    if report.failed:
        result = f"**failed**: {first_line(report)}"
    elif report.skipped:
        result = f"skipped: {report.longrepr[2].removeprefix('Skipped: ')}"
    task, figures = figures_of(report)
    own = "" if task else ", ".join(f"{name} {value}" for name, value in figures.items())
    name = report.nodeid.rpartition("::")[2].removeprefix("test_")
    return name, result, f"{report.duration:.1f}", own


def figures_of(report: pytest.TestReport) -> tuple[str, dict[str, str]]:
    """Return (task, {name: value}) of a test; the task is "" for a test without one."""
    properties = {name: str(value) for name, value in report.user_properties}
    return properties.pop(TASK), properties


def first_line(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    return (crash.message if crash else str(report.longrepr)).splitlines()[0]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the GPU report, if a test of the GPU has run."""
    stats = terminalreporter.stats
    reports = [
        report
        for outcome in ("failed", "error", "passed", "skipped")
        for report in stats.get(outcome, [])
        if TASK in dict(getattr(report, "user_properties", ()))
        and (report.when == "call" or not report.passed)
    ]
    if all(report.skipped for report in reports):
        return
    terminalreporter.section("GPU report: paste the lines below into an issue")
    for line in report_lines(reports):
        terminalreporter.write_line(line)
