"""Devices, data and the report of the tests that run on a GPU."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import pytest
import torch
from device_task import write_data

IN_REPORT = ("gpu", True)
PACKAGES = ("visionloop", "torch", "torchvision", "transformers")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu") and "metal" not in item.fixturenames:
            item.add_marker(pytest.mark.skip(reason="no CUDA device is visible"))


@pytest.fixture(autouse=True)
def restored_settings(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leave torch's process-wide switches as they were; name the tests of the GPU report."""
    if request.node.get_closest_marker("gpu"):
        request.node.user_properties.append(IN_REPORT)
    precision, tf32 = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    threads = torch.get_num_threads()
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = tf32
    torch.set_num_threads(threads)


@pytest.fixture
def metal() -> None:
    """Skip the test without a Metal device."""
    if not torch.backends.mps.is_available():
        pytest.skip("no Metal device")


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


def report_lines(reports: list[pytest.TestReport]) -> Iterator[str]:
    """Yield the lines of a markdown page: the machine, then a table of tests with their figures."""
    yield from (f"- {name}: {value}" for name, value in describe_device().items())
    yield ""
    yield "| test | result | seconds | figures |"
    yield "|---|---|---|---|"
    for report in reports:
        test = report.nodeid.rpartition("::")[2].removeprefix("test_")
        result, properties = report.outcome, report.user_properties
        figures = [f"{name} {value}" for name, value in properties if name != IN_REPORT[0]]
        if report.failed:
            result = f"**failed**: {first_line(report)}"
        elif report.skipped:
            result = f"skipped: {report.longrepr[2].removeprefix('Skipped: ')}"
        cells = (test, result, f"{report.duration:.1f}", ", ".join(figures))
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


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
        if IN_REPORT in getattr(report, "user_properties", ())
        and (report.when == "call" or not report.passed)
    ]
    if all(report.skipped for report in reports):
        return
    terminalreporter.section("GPU report: paste the lines below into an issue")
    for line in report_lines(reports):
        terminalreporter.write_line(line)
