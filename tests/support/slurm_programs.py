"""Stand-ins for the programs of SLURM, and for torchrun, that a batch script finds on its PATH.

Each notes how it was called.

They share the folder FAKE_SLURM: `calls.jsonl`, one line a call; `tasks`, the process ids of the
step that srun runs; `plan.json`, what torchrun does: {"status": text of status.json or null,
"code": exit code, "waits": for TERM}; `job.txt`, what `scontrol show job` prints.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

NODES = ("127.0.0.1", "second-node")
LONGEST = 120  # seconds until a program ends whatever happens
SCRIPT = Path(__file__).parents[2] / "bin/launches/train.sbatch"
FAKES = ("srun", "scontrol", "scancel", "torchrun")


def install(folder, names):
    """Write programs with these names into a folder."""
    folder.mkdir(parents=True)
    for name in names:
        path = folder / name
        lines = (
            f"#!{sys.executable}",
            "import sys",
            f"sys.path.insert(0, {str(Path(__file__).parent)!r})",
            "import slurm_programs",
        )
        path.write_text("\n".join((*lines, f"slurm_programs.{name}()")) + "\n")
        path.chmod(0o755)


class Job:
    """A batch job in a folder of its own, with programs of SLURM that are stand-ins."""

    def __init__(self, folder, *, nodes=2, fakes=FAKES):
        self.folder, self.run = folder, folder / "runs/first run"
        install(folder / "programs", fakes)
        (folder / "job.txt").write_text("JobId=4711 JobState=RUNNING Reason=None")
        path = f"{folder / 'programs'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        slurm = {
            "SLURM_JOB_ID": "4711",
            "SLURM_JOB_NODELIST": "node[1-2]",
            "SLURM_GPUS_ON_NODE": "8",
        }
        self.environment = (
            os.environ | slurm | {"PATH": path, "FAKE_SLURM": str(folder), "FAKE_NODES": str(nodes)}
        )
        self.options = ["--data", "my images", "--epochs", "10"]

    def start(self, *, text=None, code=1, waits=False, **environment):
        """The script, started; `text` is what its run leaves in status.json, None: nothing."""
        (self.folder / "plan.json").write_text(
            json.dumps({"status": text, "code": code, "waits": waits})
        )
        command = ["bash", str(SCRIPT), "classification", str(self.run), *self.options]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(
            command, env=self.environment | environment, cwd=self.folder, **pipes
        )

    def end(self, script, seconds=60):
        """(exit code, how often the job was queued again, what was said)."""
        said, _ = script.communicate(timeout=seconds)
        return (
            script.returncode,
            sum(call["arguments"][0] == "requeue" for call in self.calls("scontrol")),
            said,
        )

    def outcome(self, **plan):
        return self.end(self.start(**plan))

    def all_calls(self):
        path = self.folder / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def calls(self, program):
        return [call for call in self.all_calls() if call["program"] == program]

    def wait_for(self, condition, seconds=60):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "the run did not get so far"
            time.sleep(0.05)


def shared():
    return Path(os.environ["FAKE_SLURM"])


def note(**call):
    # one write is one line, whoever else writes
    with open(shared() / "calls.jsonl", "a") as file:
        file.write(
            json.dumps({"program": Path(sys.argv[0]).name, "arguments": sys.argv[1:], **call})
            + "\n"
        )


def srun():
    """Run the command once per node; on TERM kill the tasks, like srun; end with the worst code."""
    note()
    words = sys.argv[1:]
    while words[0].startswith("--"):
        words.pop(0)
    nodes = range(int(os.environ["FAKE_NODES"]))
    tasks = [
        subprocess.Popen(words, env=os.environ | {"SLURM_NODEID": str(node)}) for node in nodes
    ]

    def kill(*_):
        for task in tasks:
            task.kill()

    signal.signal(signal.SIGTERM, kill)
    (shared() / "tasks").write_text(" ".join(str(task.pid) for task in tasks))
    sys.exit(max(abs(task.wait()) for task in tasks))


def scancel():
    """--signal=TERM JOB: to the tasks of the step, not to the batch script."""
    note()
    assert sys.argv[1] == "--signal=TERM" and sys.argv[2] == os.environ["SLURM_JOB_ID"]
    for task in (shared() / "tasks").read_text().split():
        os.kill(int(task), signal.SIGTERM)


def scontrol():
    note()
    if sys.argv[1:3] == ["show", "hostnames"]:
        print("\n".join(NODES[: int(os.environ["FAKE_NODES"])]))
    elif sys.argv[1:3] == ["show", "job"]:
        print((shared() / "job.txt").read_text())
    else:
        assert sys.argv[1:] == ["requeue", os.environ["SLURM_JOB_ID"]]
        sys.exit(int(os.environ.get("FAKE_REQUEUE", "0")))


def torchrun():
    """Write status.json as process 0; a plan that waits does so a second after TERM."""
    signals = []
    signal.signal(signal.SIGTERM, lambda *_: signals.append("TERM"))
    plan = json.loads((shared() / "plan.json").read_text())
    node = os.environ["PET_NODE_RANK"]
    note(node=node)
    deadline = time.monotonic() + LONGEST
    while plan["waits"] and not signals and time.monotonic() < deadline:
        time.sleep(0.02)
    if plan["waits"]:
        time.sleep(1)
    if node == "0" and plan["status"] is not None:
        run = Path(sys.argv[sys.argv.index("--output") + 1])
        run.mkdir(parents=True, exist_ok=True)
        (run / "status.json").write_text(plan["status"])
    note(node=node, signals=signals)
    sys.exit(plan["code"])
