"""Short runs of the real commands on a device, and the comparison of what they wrote."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

from device_task import is_exact, size_setting
from watched_command import read_notes

from visionloop.engine.testing.short_runs import free_port, logged

STEPS, STOP_IN = 8, 4
LONGEST = 400  # seconds of one command, the first build of torch.compile included
WATCHED = [str(Path(__file__).with_name("watched_command.py"))]
OPTIONS = {
    "steps": STEPS,
    "model": "tiny",
    "threads": 1,
    "log_every": 1,
    "eval_every": 4,
    "save_every": 2,
    "keep": 9,
}
# The last part of a detector's run starts from the best weights so far. Which those are depends on
# a score of a few images.
MORE = {"detection": {"strong_share": 1}, "super_resolution": {"cache": "none"}}
LOSS_ERROR = 1e-5  # relative, where an operation has no deterministic backward


def train_arguments(task_name: str, device: str, data: Path, output: Path, *options: str):
    """Return the arguments of a short run of the task's command."""
    settings = {"data": data, "output": output, "device": device, **OPTIONS}
    settings |= size_setting(task_name) | MORE.get(task_name, {})
    words = [
        word
        for name, value in settings.items()
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]
    return ["train", "--from-scratch", *words, *options]


def start(*arguments: str, **environment: str) -> subprocess.Popen:
    """Start python with these arguments, without network."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"} | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def torchrun(processes: int, *options: str) -> list[str]:
    """Return the arguments of python before a script that torchrun starts on this machine."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [*launch, "--shutdown-timeout", "60", *options]


def rank_environments(number: int) -> list[dict[str, str]]:
    """Return the environments of processes of one run that no launcher starts, by rank."""
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    shared |= {"WORLD_SIZE": str(number), "LOCAL_WORLD_SIZE": str(number)}
    return [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(number)]


def finish(process: subprocess.Popen, *codes: int) -> str:
    """Return what the process printed; it must end with 0 or one of `codes`."""
    try:
        stdout, stderr = process.communicate(timeout=LONGEST)
    except subprocess.TimeoutExpired:
        process.terminate()  # a launcher ends its own processes
        stdout, stderr = process.communicate()
    command = " ".join(process.args[1:5])
    assert process.returncode in (0, *codes), (
        f"{command} ... ended with {process.returncode}:\n{stdout[-1000:]}\n{stderr[-4000:]}"
    )
    return stdout


def compare_stopped_run(
    task_name: str,
    device: str,
    data: Path,
    folder: Path,
    launch: list[str],
    options: list[str],
    *,
    stopped_code: int,
) -> dict[str, float]:
    """Run the command straight through, and stopped by SIGTERM and resumed; compare the two.

    stopped_code: exit code of the stopped start. Returns figures for the report.
    """
    outputs = [folder / name for name in ("straight", "stopped")]

    def begin(output, **environment):
        arguments = train_arguments(task_name, device, data, output, *options)
        notes = {"WATCH_NOTES": f"{output}.notes"}
        return start(*launch, task_name, *arguments, **notes, **environment)

    straight, stopped = begin(outputs[0]), begin(outputs[1], WATCH_STOP=str(STOP_IN))
    finish(straight)
    finish(stopped, stopped_code)
    status = json.loads((outputs[1] / "status.json").read_text())
    assert (status["state"], status["step"]) == ("stopped", STOP_IN + 1)
    finish(begin(outputs[1]))
    notes = [read_notes(Path(f"{output}.notes")) for output in outputs]
    assert notes[0] == notes[1], "samples, their order or normalizers differ"
    assert len(notes[0]) == STEPS
    rows = [logged(output) for output in outputs]
    difference = largest_loss_difference(*rows)
    if not is_exact(task_name, device):
        assert difference <= LOSS_ERROR
        return {"loss_difference": difference}
    last = f"checkpoints/step_{STEPS:08d}"
    first, second = (hashes(output, last, "best") for output in outputs)
    assert differing_files(first, second) == [], f"losses differ by {difference:.2g} relative"
    assert rows[0] == rows[1]
    return {"equal_files": len(first)}


def losses_of(rows: list[dict]) -> list[float]:
    return [row["loss"] for row in rows if row["kind"] == "train"]


def largest_loss_difference(first: list[dict], second: list[dict]) -> float:
    """Return the largest relative difference of the losses of two logs."""
    pairs = zip(losses_of(first), losses_of(second), strict=True)
    return max(abs(a - b) / abs(a) for a, b in pairs)


def hashes(output: Path, *folders: str) -> dict[str, str]:
    """Return {file: SHA-256} of the files in these folders of a run."""
    files = [path for name in folders for path in (output / name).rglob("*") if path.is_file()]
    assert files, f"{output} has no files in {folders}"
    return {
        str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def differing_files(first: dict[str, str], second: dict[str, str]) -> list[str]:
    names = first.keys() | second.keys()
    return sorted(name for name in names if first.get(name) != second.get(name))
