"""A real SLURM with two nodes, n1 and n2, on this machine, in a folder of its own.

munged, slurmctld and two slurmd are the installed programs, with ports, keys and files of their
own; they end with the cluster, whatever has happened.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("munged", "mungekey", "slurmctld", "slurmd", "sbatch", "scontrol", "scancel", "sinfo")
NODES = ("n1", "n2")
HOSTS = Path("/etc/hosts")
HOSTS_LINE = "127.0.0.1 n1 n2 # visionloop's tests\n"
LONGEST = 120  # seconds that a daemon or a job may take for one change
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
JobRequeue=1
KillWait=30
MinJobAge=600
SlurmdTimeout=10
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory=1000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory=1000
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


def reason_to_skip():
    """Return why there can be no cluster here, or None."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    missing = [name for name in PROGRAMS if not shutil.which(name, path=path)]
    if missing:
        return f"needs slurm-wlm and munge: {', '.join(missing)} not installed"
    if os.getuid():
        return "needs root, for daemons that start jobs and for /etc/hosts"
    return None


def free_ports(number):
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(number)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


class Process:
    """A process by its number, as /proc shows it."""

    def __init__(self, pid):
        self.pid, self.folder = pid, Path("/proc") / str(pid)

    def variables(self):
        with contextlib.suppress(OSError):
            return (self.folder / "environ").read_bytes().decode(errors="replace").split("\0")
        return []

    def parent(self):
        return Process(
            int(re.search(r"^PPid:\t(\d+)", (self.folder / "status").read_text(), re.M)[1])
        )

    def name(self):
        return (self.folder / "comm").read_text().strip()

    def send(self, number):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self):
        self.send(signal.SIGKILL)


def processes():
    return [Process(int(path.name)) for path in Path("/proc").glob("[0-9]*")]


class SlurmCluster:
    """The daemons, and the programs of users. Use it in a `with` statement.

    Args:
        folder: with a short name: it holds sockets.
    """

    def __init__(self, folder):
        self.folder, self.daemons = folder, {}
        self.environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
        self.environment["PATH"] = f"{os.environ['PATH']}:/usr/sbin"

    def __enter__(self):
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_):
        self._end()

    def _start(self):
        host = socket.gethostname().split(".")[0]
        if any(not is_local(node) for node in NODES):
            with open(HOSTS, "a") as file:  # torchrun meets at the first node, by its name
                file.write(HOSTS_LINE)
        text = CONFIGURATION.format(folder=self.folder, host=host, ports=free_ports(3))
        (self.folder / "slurm.conf").write_text(text)
        for name in ("state", *(f"spool-{node}" for node in NODES)):
            (self.folder / name).mkdir()
        munge = {name: f"{self.folder}/munge.{name}" for name in ("key", "socket", "log", "pid")}
        self.run("mungekey", "--create", "--keyfile", munge["key"])
        options = ["--key-file", munge["key"], "--socket", munge["socket"]]
        options += ["--log-file", munge["log"], "--pid-file", munge["pid"]]
        options += ["--seed-file", f"{self.folder}/munge.seed", "--num-threads", "2"]
        self._daemon("munged", "munged", "--foreground", "--force", *options)
        self.wait_for(Path(munge["socket"]).exists, "munged is not there")
        self._daemon("slurmctld", "slurmctld", "-D", "-f", self.environment["SLURM_CONF"])
        for node in NODES:
            self.start_node(node)
        self.wait_for(lambda: self.node_states() == ["idle", "idle"], "the nodes are not idle")

    def _daemon(self, name, *command):
        with open(self.folder / f"{name}.out", "ab") as log:
            self.daemons[name] = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )

    def start_node(self, node):
        self._daemon(node, "slurmd", "-D", "-N", node, "-f", self.environment["SLURM_CONF"])

    def lose_node(self, node):
        """Kill a node: its daemon, the process that watches its tasks, and the tasks."""
        self.daemons[node].kill()
        self.daemons[node].wait()
        tasks = [task for task in processes() if f"SLURMD_NODENAME={node}" in task.variables()]
        watchers = {}
        for task in tasks:
            with contextlib.suppress(OSError):
                parent = task.parent()
                if parent.name().startswith("slurmstepd"):
                    watchers[parent.pid] = parent
        assert tasks and watchers, "nothing ran there"
        for process in (*watchers.values(), *tasks):
            process.kill()

    def rank_of(self, job, node):
        """Return the training process of a job on a node, which is its only one there."""
        wanted = {f"SLURM_JOB_ID={job}", f"SLURMD_NODENAME={node}", f"RANK={NODES.index(node)}"}
        (found,) = (task for task in processes() if wanted <= set(task.variables()))
        return found

    def expire(self, job):
        """Lower the time limit of a job that runs, so that SLURM's own signal comes within 90 s.

        SLURM counts limits in minutes and looks at them every 30 s. `--signal` of train.sbatch asks
        for the signal 180 s before the limit.
        """
        days, clock = re.fullmatch(r"(?:(\d+)-)?([\d:]+)", self.field(job, "RunTime")).groups()
        hours, minutes, _ = map(int, clock.split(":"))
        passed = 60 * (24 * int(days or 0) + hours) + minutes
        self.run("scontrol", "update", f"JobId={job}", f"TimeLimit={passed + 4}")

    def node_states(self):
        return self.run("sinfo", "--noheader", "--Node", "--format", "%t", check=False).split()

    def run(self, *command, check=True, environment=None):
        """Run a program; return its output without the line's end."""
        done = subprocess.run(
            command,
            env=self.environment | (environment or {}),
            capture_output=True,
            text=True,
            timeout=LONGEST,
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def wait_for(self, condition, message, seconds=LONGEST):
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < deadline, f"{message}\n{self.said()}"
            time.sleep(0.2)
        return found

    def field(self, job, name):
        """Return a field of a job, such as JobState."""
        shown = self.run("scontrol", "show", "job", job, check=False)
        found = re.search(rf"\b{name}=(\S+)", shown)
        return found[1] if found else None

    def said(self):
        """Return the last lines of every daemon."""
        parts = [self.run("scontrol", "show", "job", check=False)]
        for log in sorted((*self.folder.glob("*.log"), *self.folder.glob("*.out"))):
            lines = log.read_text(errors="replace").splitlines()[-12:]
            parts.append("\n".join((f"-- {log.name}", *lines)))
        return "\n".join(parts)

    def _end(self):
        with contextlib.suppress(AssertionError, OSError, subprocess.TimeoutExpired):
            self.run("scancel", "--quiet", "--user", "root", check=False)
        mark = f"SLURM_CONF={self.environment['SLURM_CONF']}"
        for daemon in reversed(self.daemons.values()):
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        # jobs and the processes that watch them are children of nobody
        for process in processes():
            if process.pid != os.getpid() and mark in process.variables():
                process.kill()
        text = HOSTS.read_text()
        if HOSTS_LINE in text:
            HOSTS.write_text(text.replace(HOSTS_LINE, ""))


def is_local(node):
    try:
        return socket.gethostbyname(node).startswith("127.")
    except OSError:
        return False
