"""Short runs of the real commands: under torchrun, or in forked processes with its environment."""

import contextlib
import gc
import hashlib
import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image

from visionloop.engine.testing.short_runs import free_port, logged

SUPPORT, ROOT = Path(__file__).parent, Path(__file__).parents[2]
TORCHRUN = Path(sys.executable).with_name("torchrun")
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
STEPS = 8
SETTINGS = {
    "model": "tiny",
    "batch-size": 6,
    "micro-batch": 3,
    "steps": STEPS,
    "workers": 1,
    "threads": 1,
    "device": "cpu",
    "precision": "fp32",
    "log-every": 1,
    "eval-every": 4,
    "save-every": 2,
}
OPTIONS = ["--from-scratch"]
OPTIONS += [word for name, value in SETTINGS.items() for word in (f"--{name}", str(value))]
SIZE = {
    "classification": ["--image-size", "32"],
    "detection": ["--image-size", "96"],
    "segmentation": ["--image-size", "32"],
    "panoptic_segmentation": ["--image-size", "32"],
    "super_resolution": ["--patch-size", "16"],
}
LONGEST = 200  # seconds that a run of a few steps may take on a loaded machine


def write_classification(folder):
    """18 images to train on and 8 to evaluate, of two classes. Returns the folder."""
    for split, number in (("train", 9), ("val", 4)):
        for shade, name in ((40, "dark"), (200, "light")):
            (folder / split / name).mkdir(parents=True)
            for i in range(number):
                Image.new("RGB", (40, 30), (shade + 3 * i, shade, shade)).save(
                    folder / split / name / f"{i}.png"
                )
    return folder


def bytes_of(output, steps=STEPS):
    """SHA-256 of each file of the checkpoint after `steps` and of best/, and the logged numbers."""
    files = [
        path
        for folder in (output / "checkpoints" / f"step_{steps:08d}", output / "best")
        for path in folder.iterdir()
    ]
    assert len(files) >= 10
    return {
        str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }, logged(output)


class Runs:
    """Runs of tests/support/watched_classification.py in a folder.

    An injury: {"step", "rank", "signal", "targets": of "launcher" and "self"}.
    """

    def __init__(self, folder, data):
        self.folder, self.data = folder, data

    def output(self, name):
        return self.folder / name

    def arguments(self, name, options):
        return [
            "train",
            "--data",
            str(self.data),
            "--output",
            str(self.output(name)),
            *SIZE["classification"],
            *OPTIONS,
            *options,
        ]

    def watching(self, name, injury):
        notes = self.folder / f"{name}.notes"
        notes.mkdir(exist_ok=True)
        return {"WATCH_NOTES": str(notes), "WATCH_INJURY": json.dumps(injury)}

    def trained_on(self, name):
        """{step: (sample ids in order of the global batch, normalizers)}, each step once."""
        rows = [
            json.loads(line)
            for path in (self.folder / f"{name}.notes").iterdir()
            for line in path.read_text().splitlines()
        ]
        steps = {}
        for row in sorted(rows, key=lambda row: (row["step"], row["offset"])):
            ids, counts = steps.setdefault(row["step"], ([], set()))
            assert len(ids) == row["offset"], "a micro-batch is missing, or was trained on twice"
            ids.extend(row["ids"])
            counts.add(row["count"])
        return steps

    def torchrun(self, name, launch, *, injury=None, log):
        """Start torchrun with these arguments; return the Popen. log: file for all output."""
        command = [
            TORCHRUN,
            *launch,
            "--shutdown-timeout",
            "60",
            SUPPORT / "watched_classification.py",
            *self.arguments(name, ()),
        ]
        with open(log, "w") as output:
            environment = ENVIRONMENT | self.watching(name, injury)
            return subprocess.Popen(
                [str(part) for part in command],
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def forked(self, name, processes, *options, injury=None):
        """Train on forked processes to their end; return ([exit code], [output of each]).

        One that an injury stops is not waited for.
        """
        port, started = free_port(), []
        logs = [self.folder / f"{name}.{rank}.log" for rank in range(processes)]
        for rank in range(processes):
            environment = {
                "LOCAL_WORLD_SIZE": str(processes),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            }
            environment |= {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(processes),
            } | self.watching(name, injury)
            work = (self.arguments(name, ("--workers", "0", *options)), environment, logs[rank])
            started.append(multiprocessing.get_context("fork").Process(target=_train, args=work))
            started[-1].start()
        is_stopped = [
            injury is not None and injury["signal"] == "SIGSTOP" and injury["rank"] == rank
            for rank in range(processes)
        ]
        deadline = time.monotonic() + LONGEST
        for process, stopped in zip(started, is_stopped, strict=True):
            if not stopped:
                process.join(max(0, deadline - time.monotonic()))
        codes = [process.exitcode for process in started]
        for process in started:
            process.kill()
            process.join()
        return codes, [log.read_text() for log in logs]


def _train(arguments, environment, log):
    import watched_classification

    gc.freeze()  # or this process copies all that its parent has imported, when it collects
    os.environ |= environment
    # not pytest's, which keeps what is printed for itself
    sys.stdout = sys.stderr = open(log, "w", buffering=1)  # noqa: SIM115 - to the end of the process
    for stream in (1, 2):
        os.dup2(sys.stdout.fileno(), stream)
    watched_classification.run(arguments)


def left_behind(text, seconds=20):
    """Command lines of processes that have `text` in it and do not end within so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        commands = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):  # it has just ended
                commands.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        commands = [line for line in commands if text in line]
        if not commands or time.monotonic() > deadline:
            return commands
        time.sleep(0.1)
