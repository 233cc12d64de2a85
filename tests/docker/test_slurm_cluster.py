"""train.sbatch on a real SLURM of two nodes, started by the command of the studio's launcher."""

import functools
import json
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest
from slurm_cluster import SlurmCluster, reason_to_skip
from torchrun_runs import OPTIONS, ROOT, SIZE, bytes_of, left_behind, write_classification

from visionloop.bin.web.jobs.spec import JobKind, JobSpec
from visionloop.bin.web.launchers.launch import SlurmOptions
from visionloop.bin.web.launchers.slurm import slurm_launch

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
STEPS = 100
LENGTH = ["--steps", str(STEPS), "--save-every", "20", "--eval-every", "50", "--workers", "0"]
# train options with which a run must do the same
VARIANTS = [pytest.param((), id="plain"), pytest.param(("--shard", "full"), id="sharded")]
LONGEST = 600  # seconds that a run may take to its next step, or to its end
LIMIT_SECONDS = 150  # until SLURM has noticed that a limit is near


@pytest.fixture(scope="module")
def cluster():
    if reason := reason_to_skip():
        pytest.skip(reason)
    # not in pytest's folder: the names of sockets are limited to 107 bytes
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    try:
        with SlurmCluster(folder) as cluster:
            yield cluster
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_classification(tmp_path_factory.mktemp("data") / "images")


class Job:
    """A training that is submitted with the command of `slurm_launch`."""

    def __init__(self, cluster, images, folder, name, *options):
        self.cluster, self.run, self.folder = cluster, folder / f"a run, {name}", folder / name
        self.folder.mkdir()
        words = ("--data", str(images), *SIZE["classification"], *OPTIONS, *LENGTH, *options)
        spec = JobSpec(name, JobKind.TRAIN, "classification", self.run, words)
        self.launch = slurm_launch(spec, SlurmOptions(kind="slurm", nodes=2), self.folder)
        self.id = None

    def submit(self):
        environment = dict(self.launch.environment) | {"OMP_NUM_THREADS": "1"}
        self.id = self.cluster.run(*self.launch.command, environment=environment)
        assert self.id.isdecimal()
        return self

    def is_there(self):
        return bool(self.cluster.run(*self.launch.probe))

    def said(self):
        log = self.folder / "log.txt"
        return log.read_text(errors="replace") if log.exists() else ""

    def status(self):
        try:
            return json.loads((self.run / "status.json").read_text())
        except (OSError, ValueError):
            return {}

    def wait_for_step(self, step):
        checkpoint = self.run / f"checkpoints/step_{step:08d}"
        self.cluster.wait_for(checkpoint.exists, f"no step {step}\n{self.said()}", LONGEST)

    def wait_until_gone(self):
        self.cluster.wait_for(lambda: not self.is_there(), f"no end\n{self.said()}", LONGEST)
        assert left_behind(str(self.run)) == []

    def start_again_now(self):
        """Start the job that SLURM has queued again, without the two minutes that it lets pass.

        With hours until its limit, which a test may have lowered: a slow machine must not reach it
        again.

        Not within the second in which it was queued: its nodes would take the new credential for
        the old one, which is revoked.
        """
        self.cluster.wait_for(
            lambda: self.cluster.field(self.id, "JobState") == "PENDING",
            f"not queued again\n{self.said()}",
        )
        assert left_behind(str(self.run)) == []
        self.cluster.run("scontrol", "update", f"JobId={self.id}", "TimeLimit=480")
        self.cluster.run("scontrol", "update", f"JobId={self.id}", "StartTime=now+3seconds")

    def require_finished(self):
        self.wait_until_gone()
        assert self.cluster.field(self.id, "JobState") == "COMPLETED", (
            f"{self.said()}\n{self.cluster.said()}"
        )
        assert self.status()["state"] == "finished" and "2 process(es)" in self.said()

    def content(self):
        """Hashes of the last checkpoint and of best/, and the logged numbers."""
        return bytes_of(self.run, STEPS)


@pytest.fixture(scope="module")
def undisturbed(cluster, images, tmp_path_factory):
    """A function of train options that returns the finished job that nothing disturbed."""

    @functools.cache
    def finished(*options):
        job = Job(cluster, images, tmp_path_factory.mktemp("straight"), "straight", *options)
        job.submit()
        assert job.is_there()
        job.require_finished()
        return job

    return finished


@pytest.fixture
def straight(undisturbed):
    return undisturbed()


@pytest.mark.parametrize("options", VARIANTS)
def test_two_nodes_train_to_the_end(undisturbed, options):
    job = undisturbed(*options)
    assert job.status()["step"] == STEPS
    assert "n1" in job.cluster.field(job.id, "BatchHost")
    assert job.cluster.field(job.id, "NumNodes") == "2"


@pytest.mark.parametrize("options", VARIANTS)
def test_a_job_at_its_time_limit_is_queued_again_and_goes_on_to_the_same_bytes(
    cluster, images, undisturbed, tmp_path, options
):
    job = Job(cluster, images, tmp_path, "limited", *options).submit()
    job.wait_for_step(20)
    # the run must still be going when the limit comes, on a machine of any speed
    paused = cluster.rank_of(job.id, "n2")
    paused.send(signal.SIGSTOP)
    cluster.expire(job.id)
    cluster.wait_for(lambda: "asked to stop" in job.said(), "no signal of the limit", LIMIT_SECONDS)
    paused.send(signal.SIGCONT)
    job.start_again_now()
    stopped = job.status()
    assert stopped["state"] == "stopped" and 20 <= stopped["step"] < STEPS
    assert "stopped; queued again, restart 1 of at most 20" in job.said()
    job.require_finished()
    assert f"resuming after step {stopped['step']}" in job.said()
    assert cluster.field(job.id, "Restarts") == "1"
    assert job.content() == undisturbed(*options).content()


def test_a_job_that_loses_a_process_of_its_second_node_goes_on_to_the_same_bytes(
    cluster, images, straight, tmp_path
):
    job = Job(cluster, images, tmp_path, "process lost").submit()
    job.wait_for_step(40)
    cluster.rank_of(job.id, "n2").kill()
    job.start_again_now()
    assert job.status()["error"]["code"] == "lost_process"
    assert "failed lost_process; queued again, restart 1 of at most 20" in job.said()
    job.require_finished()
    assert "resuming after step" in job.said()
    assert cluster.field(job.id, "Restarts") == "1"
    assert job.content() == straight.content()


def test_a_job_whose_node_is_lost_goes_on_when_there_is_one_again(
    cluster, images, straight, tmp_path
):
    job = Job(cluster, images, tmp_path, "lost").submit()
    job.wait_for_step(40)
    cluster.lose_node("n2")
    try:
        job.start_again_now()
        assert job.status()["state"] in ("running", "failed") and job.status()["step"] < STEPS
    finally:
        cluster.start_node("n2")
    job.require_finished()
    assert "resuming after step" in job.said()
    assert job.content() == straight.content()


def test_a_stop_saves_and_ends_the_job_for_good_and_the_same_command_resumes(
    cluster, images, straight, tmp_path
):
    job = Job(cluster, images, tmp_path, "stopped").submit()
    waiting = Job(cluster, images, tmp_path, "waiting").submit()
    job.wait_for_step(20)
    assert cluster.field(waiting.id, "JobState") == "PENDING" and waiting.is_there()
    cluster.run(*waiting.launch.stop)
    waiting.wait_until_gone()
    assert not waiting.run.exists()

    cluster.run(*job.launch.stop)
    job.wait_until_gone()
    assert job.status()["state"] == "stopped" and "stopped; asked to stop for good" in job.said()
    job.submit().require_finished()
    assert job.content() == straight.content()


def test_a_canceled_job_is_not_queued_again_and_the_same_command_goes_on_to_the_same_bytes(
    cluster, images, straight, tmp_path
):
    job = Job(cluster, images, tmp_path, "canceled").submit()
    job.wait_for_step(20)
    cluster.run(*job.launch.kill)
    job.wait_until_gone()
    assert cluster.field(job.id, "JobState") == "CANCELLED"
    assert cluster.field(job.id, "Restarts") == "0"
    # SLURM may have killed it before it could save: what there is must be whole
    assert job.status()["state"] in ("stopped", "running") and job.status()["step"] < STEPS
    cluster.run(sys.executable, str(ROOT / "bin/checkpoint.py"), "verify", str(job.run))
    job.submit().require_finished()
    assert "resuming after step" in job.said()
    assert job.content() == straight.content()


def test_a_job_without_its_data_folder_fails_with_2_and_is_not_queued_again(cluster, tmp_path):
    job = Job(cluster, tmp_path / "no images", tmp_path, "no data").submit()
    job.wait_until_gone()
    assert "no images" in job.said() and "not queued again" in job.said()
    assert cluster.field(job.id, "JobState") == "FAILED"
    assert cluster.field(job.id, "ExitCode") == "2:0"
    assert cluster.field(job.id, "Restarts") == "0"
