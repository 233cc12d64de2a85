"""Checks of `selftest` that start the real commands, as a user does. Each takes a Trial, see selftest_numbers.py."""

import hashlib
import json
import os
import subprocess
import sys
import threading
import time

from visionloop.bin.benchmarks.selftest_trial import SIDES, NotPossible
from visionloop.bin.benchmarks.tasks import SIDE, load_task_class
from visionloop.bin.benchmarks.watched_run import read_notes
from visionloop.engine.errors import STOPPED
from visionloop.engine.system import fault_injection
from visionloop.engine.testing.short_runs import logged
from visionloop.engine.train import train

STEPS, STOP_IN = 8, 4
OPTIONS = [
    "--model", "tiny", "--from-scratch", "--steps", str(STEPS), "--threads", "1", "--log-every", "1", "--eval-every", "4",
    "--save-every", "2", "--keep", "9",
]  # fmt: skip
# the last part of a detector's run begins with the best weights so far: which those are hangs on a
# score of few images
MORE = {"detection": ["--strong-share", "1"], "super_resolution": ["--cache", "none"]}
WATCHED = ["-m", "visionloop.bin.benchmarks.watched_run"]
LOSSES_APART = 1e-5  # relative, where an operation has no deterministic backward


def health(trial):
    """The command of one task; what it prints is the same for all, but for the import of the task."""
    done = finish(
        start(["-m", "visionloop.bin.classification", "health", "--json", "--device", trial.device])
    )
    report = json.loads(done)
    return {
        "devices_seen": len(report["devices"]),
        "warnings": "; ".join(report["warnings"]) or "none",
    }


def train_options(trial, output, *options, task_name=None):
    """Arguments of the task's command for a short run."""
    task_name = task_name or trial.task_name
    side = [f"--{SIDE.get(task_name, 'image_size').replace('_', '-')}", str(SIDES[task_name])]
    places = [
        "--data",
        str(trial.data(task_name)),
        "--output",
        str(output),
        "--device",
        trial.device,
    ]
    return ["train", *places, *side, *OPTIONS, *MORE.get(task_name, ()), *options]


def start(arguments, **environment):
    """`python ARGUMENTS`, started: a subprocess.Popen."""
    command = [sys.executable, *arguments]
    return subprocess.Popen(
        command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL
    )  # fmt: skip


def finish(process, *codes):
    """What the process printed; AssertionError with its last line when it ends with another exit code than 0 or one of `codes`."""
    printed, complained = process.communicate()
    last = (complained.strip() or printed.strip() or "nothing was printed").splitlines()[-1]
    why = f"{' '.join(process.args[1:5])} ... ended with {process.returncode}: {last}\n{complained[-4000:]}"
    assert process.returncode in (0, *codes), why
    return printed


def same_bytes(trial):
    """One process, the two first starts at the same time."""
    options = [
        *precision_of(trial, trial.task_name),
        "--batch-size",
        "6",
        "--micro-batch",
        "3",
        "--workers",
        "1",
        "--deterministic",
    ]
    return compare_runs(trial, WATCHED, options, stopped_code=STOPPED)


def torchrun(trial):
    """Two processes, each with a device of its own on CUDA."""
    trial.need_devices(2)
    return under_torchrun(trial, trial.task_name, 2)


def torchrun_all(trial):
    """As many processes as there are devices, which are more than two."""
    trial.need_devices(3)
    return under_torchrun(trial, "classification", trial.devices())


def under_torchrun(trial, task_name, processes):
    launch = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(processes),
        "--shutdown-timeout",
        "60",
        *WATCHED,
    ]
    sizes = ["--batch-size", str(4 * processes), "--micro-batch", "2"]
    options = [*precision_of(trial, task_name), *sizes, "--workers", "1", "--deterministic"]
    return compare_runs(trial, launch, options, stopped_code=1, task_name=task_name) | {
        "processes": processes
    }


def precision_of(trial, task_name):
    """bf16 on CUDA where bytes are compared, fp32 where losses are, and where bf16 takes far longer."""
    return [
        "--precision",
        "bf16" if trial.device == "cuda" and trial.is_exact(task_name) else "fp32",
    ]


def compare_runs(trial, launch, options, *, stopped_code, task_name=None):
    """Run straight through, and stopped and gone on with. stopped_code: with which the stopped start ends."""
    task_name, outputs = (
        task_name or trial.task_name,
        [trial.folder / name for name in ("straight", "stopped")],
    )

    def begin(output, **environment):
        arguments = train_options(trial, output, *options, task_name=task_name)
        return start([*launch, task_name, *arguments], WATCH_NOTES=f"{output}.notes", **environment)

    straight, stopped = begin(outputs[0]), begin(outputs[1], WATCH_STOP=str(STOP_IN))
    finish(straight)
    finish(stopped, stopped_code)
    status = json.loads((outputs[1] / "status.json").read_text())
    assert (status["state"], status["step"]) == ("stopped", STOP_IN + 1), (
        f"told to stop in step {STOP_IN + 1}, it is {status}"
    )
    finish(begin(outputs[1]))
    trained = [read_notes(f"{output}.notes") for output in outputs]
    assert trained[0] == trained[1], "other samples, another order or other counts"
    assert len(trained[0]) == STEPS, f"{len(trained[0])} steps of {STEPS}"
    rows = [logged(output) for output in outputs]
    apart = largest_apart(*rows)
    if trial.is_exact(task_name):
        both = [hashes(output, f"checkpoints/step_{STEPS:08d}", "best") for output in outputs]
        number = equal_files(*both, told=f"; losses by {apart:.2g} relative")
        assert rows[0] == rows[1], "metrics.jsonl differs"
        return {"equal_files": number}
    assert apart <= LOSSES_APART, f"losses differ by {apart:.2g} relative"
    return {"loss_difference": apart}


def largest_apart(first, second):
    """The largest relative difference of the losses of two logs."""
    return max(
        abs(a - b) / abs(a) for a, b in zip(losses_of(first), losses_of(second), strict=True)
    )


def losses_of(rows):
    return [row["loss"] for row in rows if row["kind"] == "train"]


def hashes(output, *folders):
    """{file: SHA-256} below these folders of a run."""
    files = [path for folder in folders for path in (output / folder).rglob("*") if path.is_file()]
    return {
        str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def async_save(trial):
    """Two runs in this process; a checkpoint of the second is held back until training has gone two steps further."""
    reached, outputs = threading.Event(), [trial.folder / name for name in ("waiting", "beside")]
    settings = dict(
        data=str(trial.data("classification")), model="tiny", from_scratch=True, image_size=SIDES["classification"], device=trial.device,
        steps=STEPS, batch_size=6, micro_batch=3, workers=0, threads=1, save_every=2, eval_every=4, keep=9, deterministic=True,
    )  # fmt: skip

    class Reaching(load_task_class("classification")):
        def before_step(self, module, step, steps):
            super().before_step(module, step, steps)
            if step == 3:
                reached.set()

    def hold(point, folder):
        if point == "after open" and "step_00000002" in folder.name:
            assert reached.wait(60), "the loop waits for the disk"

    train(Reaching, output=str(outputs[0]), save_async=False, **settings)
    reached.clear()
    fault_injection.arm(hold)
    try:
        train(Reaching, output=str(outputs[1]), save_async=True, **settings)
    finally:
        fault_injection.arm(None)
    return {
        "equal_files": equal_files(*(hashes(output, "checkpoints", "best") for output in outputs))
    }


def equal_files(first, second, told=""):
    """How many there are; AssertionError where one differs. first, second: of `hashes`."""
    differing = sorted(
        name for name in first.keys() | second.keys() if first.get(name) != second.get(name)
    )
    assert first, "nothing was written"
    assert not differing, (
        f"{len(differing)} of {len(first)} files differ, first {differing[0]}{told}"
    )
    return len(first)


def compiled(trial):
    """Two runs at the same time."""
    options = [
        "--precision",
        "fp32",
        "--no-tf32",
        "--batch-size",
        "4",
        "--micro-batch",
        "4",
        "--workers",
        "0",
    ]
    began, outputs = time.monotonic(), {name: trial.folder / name for name in ("plain", "compiled")}
    module = ["-m", f"visionloop.bin.{trial.task_name}"]
    processes = [start([*module, *train_options(trial, outputs["plain"], *options)])]
    processes.append(
        start([*module, *train_options(trial, outputs["compiled"], *options, "--compile")])
    )
    for process in processes:
        finish(process)
    rows = [logged(output) for output in outputs.values()]
    (first, *_), (other, *_) = (losses_of(logs) for logs in rows)
    apart = abs(first - other) / first
    assert apart <= 1e-3, f"the first loss is {other}, {first} without --compile"
    seconds = round(time.monotonic() - began, 1)
    return {
        "first_loss_difference": apart,
        "loss_difference": largest_apart(*rows),
        "start_and_train_seconds": seconds,
    }


def mps(trial):
    """A short run of each task."""
    import torch

    if not torch.backends.mps.is_available():
        raise NotPossible("no Metal device")
    if trial.device != "mps":
        raise NotPossible(f"--device is {trial.device}")
    for task_name in SIDES:
        options = [
            "--precision",
            "fp32",
            "--batch-size",
            "4",
            "--micro-batch",
            "4",
            "--workers",
            "0",
        ]
        arguments = train_options(trial, trial.folder / task_name, *options, task_name=task_name)
        finish(start(["-m", f"visionloop.bin.{task_name}", *arguments]))
    return {"tasks": len(SIDES)}
