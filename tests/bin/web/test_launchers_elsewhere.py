"""Launchers of Docker, SLURM and Kubernetes: the words that the programs get, for any run name.

docker, sbatch and kubectl are stand-ins that write down their arguments. Where Docker's client and
kubectl are installed, they read the command lines too, and stand-ins of the engine and of the API
server get their requests.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from kubernetes_api import KubernetesApi
from recorded_programs import DockerEngine, install, rows_of
from torchrun_runs import ROOT

from visionloop.bin.web.jobs.spec import JobKind, JobSpec
from visionloop.bin.web.launchers.docker import docker_launch
from visionloop.bin.web.launchers.kubernetes import kubernetes_launch
from visionloop.bin.web.launchers.launch import (
    ClaimMount,
    DockerOptions,
    KubernetesOptions,
    SlurmOptions,
)
from visionloop.bin.web.launchers.slurm import slurm_launch
from visionloop.engine.errors import UserError

HOSTILE = (
    "two words",
    'it\'s "quoted"',
    "$(touch pwned) `touch pwned` $HOME ${HOME} $$",
    "a,source=/etc,target=/b",
    "100%j %N",
    "; & | > * ? ~ # \\ -",
    "<img onerror=alert(1)>",
    "--privileged",
    "학습 🌷",
)
DATA = ("--data", "/data/my images", "--model=/models/a b", "--epochs", "10", "--lr", "1e-4")
VERSIONS = ("1.31", "1.34", "1.37")  # of Kubernetes


def job(run, *options):
    return JobSpec("J7", JobKind.TRAIN, "super_resolution", Path(run), options or DATA)


def kubernetes_options(**options):
    return KubernetesOptions(kind="kubernetes", **options)


def launches(spec, folder):
    """Launches with the options that are needed, by program."""
    everything = [ClaimMount(claim="everything", path="/")]
    return {
        "docker": docker_launch(spec, DockerOptions(kind="docker"), folder),
        "sbatch": slurm_launch(spec, SlurmOptions(kind="slurm"), folder),
        "kubectl": kubernetes_launch(spec, kubernetes_options(mounts=everything), folder),
    }


@pytest.mark.parametrize("name", HOSTILE)
def test_every_program_gets_the_words_of_the_launch_and_no_shell_reads_them(tmp_path, name):
    programs = ("docker", "sbatch", "scancel", "squeue", "kubectl")
    calls = install(tmp_path / "programs", *programs)
    for program, launch in launches(job(tmp_path / "runs" / name), tmp_path).items():
        assert launch.command[0] == program and launch.submits == (program != "docker")
        environment = os.environ | launch.environment
        environment["PATH"] = f"{tmp_path / 'programs'}:{environment['PATH']}"
        for command in filter(None, (launch.command, launch.kill, launch.probe, launch.stop)):
            subprocess.run(command, env=environment, check=True, cwd=tmp_path)
            if command[0] in programs:
                assert tuple(rows_of(calls)[-1]["command"]) == command
        for path, text in launch.files.items():
            assert path == str(tmp_path / "manifest.yaml") and yaml.safe_load(text)
    assert list(tmp_path.rglob("pwned")) == []


@pytest.mark.parametrize("name", ["two\nlines", "a\ttab", "\x1b[31m", "carriage\rreturn"])
def test_a_name_with_a_control_character_is_refused(tmp_path, name):
    for spec in (job(tmp_path / name), job(tmp_path, "--data", f"/data/{name}")):
        with pytest.raises(UserError, match="without line breaks"):
            docker_launch(spec, DockerOptions(kind="docker"), tmp_path)
        with pytest.raises(UserError, match="without line breaks"):
            slurm_launch(spec, SlurmOptions(kind="slurm"), tmp_path)
        with pytest.raises(UserError, match="without line breaks"):
            kubernetes_launch(spec, kubernetes_options(), tmp_path)


def test_only_trainings_are_started_elsewhere(tmp_path):
    check = JobSpec("J8", JobKind.CHECK, "detection", None, ("--data", "/data"))
    with pytest.raises(AssertionError, match="only trainings"):
        docker_launch(check, DockerOptions(kind="docker"), tmp_path)


# -- Docker


def requests_of_docker(launch, tmp_path):
    """Return the request that Docker's client makes of a command, by `docker create`."""
    if not shutil.which("docker"):
        pytest.skip("needs Docker's client")
    with DockerEngine(tmp_path / "engine") as engine:
        environment = os.environ | {"DOCKER_HOST": engine.address, "HOME": str(tmp_path)}
        words = ("docker", "create", *launch.command[2:])
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stdout) == (0, "c0ffee\n"), done.stderr
        engine.shutdown()
        (request,) = engine.created
        return request


@pytest.mark.parametrize("name", HOSTILE)
def test_a_container_sees_the_same_paths_and_writes_beside_its_run_alone(
    tmp_path, name, monkeypatch
):
    monkeypatch.setenv("HF_HOME", "/caches/hugging, face")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    run = tmp_path / name / "run"
    options = DockerOptions(kind="docker", devices=[0, 3], shared_memory_gib=2)
    launch = docker_launch(job(run), options, tmp_path)
    request = requests_of_docker(launch, tmp_path)
    host = request["HostConfig"]
    mounts = {mount["Source"]: mount.get("ReadOnly", False) for mount in host["Mounts"]}
    assert mounts == {
        str(run.parent): False,
        "/caches/hugging, face": False,
        "/data/my images": True,
        "/models/a b": True,
    }
    assert all(mount["Target"] == mount["Source"] for mount in host["Mounts"])
    assert {mount["Type"] for mount in host["Mounts"]} == {"bind"}
    assert not host.get("Binds") and not host["Privileged"]
    assert request["Env"] == ["HF_HOME=/caches/hugging, face"]
    (gpus,) = host["DeviceRequests"]
    assert gpus["DeviceIDs"] == ["0", "3"]
    assert host["ShmSize"] == 2 << 30 and host["Init"] and host["AutoRemove"]
    assert host["CapDrop"] == ["ALL"] and host["SecurityOpt"] == ["no-new-privileges"]
    assert request["StopTimeout"] == 120 and request["User"] == f"{os.getuid()}:{os.getgid()}"
    assert request["request"].endswith("?name=visionloop-j7")
    assert request["Image"] == "visionloop:cuda"
    entry = ["visionloop-launch", "run", "--processes", "2", "super_resolution", str(run)]
    assert request["Cmd"] == [*entry, *DATA]


def test_a_container_on_the_cpu_has_no_gpus_and_its_stop_is_that_of_docker(tmp_path):
    options = DockerOptions(kind="docker", processes=3)
    launch = docker_launch(job(tmp_path / "run"), options, tmp_path)
    assert "--gpus" not in launch.command
    assert launch.command[launch.command.index("--processes") + 1] == "3"
    assert launch.stop == ("docker", "stop", "visionloop-j7")
    assert launch.kill == ("docker", "kill", "visionloop-j7")


def test_data_below_a_folder_that_is_written_is_mounted_once(tmp_path):
    model = str(tmp_path / "runs/first/best")
    spec = job(tmp_path / "runs/second", "--model", model, "--data", "relative/images")
    command = docker_launch(spec, DockerOptions(kind="docker"), tmp_path).command
    sources = re.findall(r"source=([^,]+)", " ".join(command))
    assert str(tmp_path / "runs") in sources and model not in sources
    assert not any("relative" in source for source in sources)


# -- SLURM


def test_a_slurm_job_gets_what_was_chosen_and_this_environment(tmp_path):
    options = SlurmOptions(
        kind="slurm",
        nodes=2,
        gpus_per_node=8,
        cpus_per_task=64,
        time="1-00:00:00",
        partition="main",
        account="vision",
    )
    launch = slurm_launch(job("/runs/a"), options, tmp_path / "100%j")
    script = launch.command.index(str(ROOT / "bin/launches/train.sbatch"))
    assert launch.command[script + 1 :] == ("super_resolution", "/runs/a", *DATA)
    words = launch.command[2:script]
    assert dict(zip(words[::2], words[1::2], strict=True)) == {
        "--job-name": "visionloop-j7",
        "--output": f"{tmp_path}/100%%j/log.txt",
        "--open-mode": "append",
        "--nodes": "2",
        "--time": "1-00:00:00",
        "--gpus-per-node": "8",
        "--cpus-per-task": "64",
        "--partition": "main",
        "--account": "vision",
    }
    assert launch.environment["PATH"].split(":")[0] == str(Path(sys.executable).parent)
    assert "PROCESSES" not in launch.environment, "one for each GPU"
    alone = slurm_launch(job("/runs/a"), SlurmOptions(kind="slurm"), tmp_path)
    assert alone.environment["PROCESSES"] == "1"


def test_a_stop_removes_a_waiting_job_and_signals_a_running_one(tmp_path):
    calls = install(tmp_path / "programs", "scancel")
    launch = slurm_launch(job("/runs/a"), SlurmOptions(kind="slurm"), tmp_path)
    path = {"PATH": f"{tmp_path / 'programs'}:{os.environ['PATH']}"}
    subprocess.run(launch.stop, env=os.environ | path, check=True)
    waiting, running = (" ".join(row["command"]) for row in rows_of(calls))
    assert waiting == "scancel --quiet --name visionloop-j7 --state PENDING"
    assert running.endswith("visionloop-j7 --batch --signal USR1 --state RUNNING")


# -- Kubernetes


MOUNTS = [
    ClaimMount(claim="runs", path="/runs"),
    ClaimMount(claim="data", path="/data"),
    ClaimMount(claim="data", path="/models"),
]


def manifest_of(launch):
    (text,) = launch.files.values()
    assert "&id" not in text, "people read it"
    return yaml.safe_load(text)


def expanded(words):
    """Return the words as Kubernetes passes them on: $$ is $, $(NAME) a variable."""
    assert not any(re.search(r"(?<!\$)(\$\$)*\$\(", word) for word in words)
    return [word.replace("$$", "$") for word in words]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("nodes", [1, 4])
def test_a_manifest_has_the_published_schema(tmp_path, version, nodes):
    """The schema of a JobSet is in no package: the Job inside it is checked."""
    options = kubernetes_options(nodes=nodes, gpus_per_node=8, mounts=MOUNTS)
    launch = kubernetes_launch(job("/runs/a"), options, tmp_path)
    manifest = manifest_of(launch)
    if nodes > 1:
        assert manifest["kind"] == "JobSet"
        (group,) = manifest["spec"]["replicatedJobs"]
        kind = {"apiVersion": "batch/v1", "kind": "Job"}
        manifest = kind | group["template"]
    kubernetes_validate.validate(manifest, version, strict=True)
    manifest["spec"]["template"]["spec"]["containers"][0]["volumeMount"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_pod_runs_the_command_of_the_job_whatever_its_names_hold(tmp_path, name):
    launch = kubernetes_launch(job(f"/runs/{name}"), kubernetes_options(mounts=MOUNTS), tmp_path)
    (container,) = manifest_of(launch)["spec"]["template"]["spec"]["containers"]
    entry = ["visionloop-launch", "run", "--processes", "1", "super_resolution", f"/runs/{name}"]
    assert expanded(container["command"]) == [*entry, *DATA]


def test_a_pod_that_was_stopped_is_started_again_and_a_mistake_ends_the_job(tmp_path):
    launch = kubernetes_launch(job("/runs/a"), kubernetes_options(mounts=MOUNTS), tmp_path)
    manifest = manifest_of(launch)
    rules = manifest["spec"]["podFailurePolicy"]["rules"]
    codes = {
        rule["onExitCodes"]["values"][0]: rule["action"] for rule in rules if "onExitCodes" in rule
    }
    assert codes == {2: "FailJob", 75: "Ignore"}
    assert rules[-1]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert rules[-1]["action"] == "Ignore"
    pod = manifest["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never" and pod["terminationGracePeriodSeconds"] == 180
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 1000
    shared = {volume["name"]: volume for volume in pod["volumes"]}["shm"]["emptyDir"]
    assert shared == {"medium": "Memory", "sizeLimit": "8Gi"}
    mounted = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    assert mounted == {"/runs", "/data", "/models", "/dev/shm"}
    assert len(pod["volumes"]) == 3, "one for each claim"


def test_nodes_meet_at_the_first_pod_of_the_set(tmp_path):
    options = kubernetes_options(nodes=4, gpus_per_node=8, mounts=MOUNTS)
    manifest = manifest_of(kubernetes_launch(job("/runs/a"), options, tmp_path))
    spec = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert (spec["parallelism"], spec["completions"]) == (4, 4)
    assert spec["completionMode"] == "Indexed"
    (container,) = spec["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "8"
    assert container["command"][:8] == [
        *("visionloop-launch", "run", "--processes", "8", "--nodes", "4"),
        *("--master-address", "visionloop-j7-node-0-0.visionloop-j7"),
    ]


@pytest.mark.parametrize("run", ["/else/run", "/runs/../etc", "/runs-2/a"])
def test_a_path_that_no_claim_holds_is_refused(tmp_path, run):
    with pytest.raises(UserError, match="below a mounted claim") as caught:
        kubernetes_launch(job(run), kubernetes_options(mounts=MOUNTS), tmp_path)
    assert run in str(caught.value) and caught.value.field == "launcher.mounts"
    with pytest.raises(UserError, match="/data/my images: expected a path below"):
        kubernetes_launch(job("/runs/a"), kubernetes_options(mounts=MOUNTS[:1]), tmp_path)


class Kubectl:
    """kubectl itself, with a stand-in of the server."""

    def __init__(self, api, folder):
        kubeconfig = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": api.address}}],
            "contexts": [{"name": "test", "context": {"cluster": "test"}}],
            "current-context": "test",
        }
        (folder / "config").write_text(yaml.safe_dump(kubeconfig))
        self.environment = os.environ | {"KUBECONFIG": f"{folder}/config", "HOME": str(folder)}

    def __call__(self, command, *options):
        done = subprocess.run(
            (*command, *options), env=self.environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.mark.parametrize(("nodes", "resource"), [(1, "jobs"), (2, "jobsets")])
def test_kubectl_hands_a_job_over_asks_for_it_stops_and_kills_it(tmp_path, nodes, resource):
    if not shutil.which("kubectl"):
        pytest.skip("needs kubectl")
    options = kubernetes_options(nodes=nodes, mounts=MOUNTS)
    launch = kubernetes_launch(job("/runs/a $(HOME)"), options, tmp_path)
    for path, text in launch.files.items():
        Path(path).write_text(text)
    with KubernetesApi() as api:
        kubectl = Kubectl(api, tmp_path)
        assert kubectl(launch.probe) == ""
        # the stand-in has no schema
        kubectl(launch.command, "--validate=false")
        key = ("default", resource, "visionloop-j7")
        (created,) = api.objects.values()
        assert list(api.objects) == [key] and created["spec"] == manifest_of(launch)["spec"]
        assert kubectl(launch.probe) == "visionloop-j7"

        created["status"] = {"conditions": [{"type": "Failed", "status": "True"}]}
        assert kubectl(launch.probe) == "", "a job that has ended"
        kubectl(launch.command, "--validate=false")
        assert kubectl(launch.probe) == "visionloop-j7", "a resumed job is a new one"

        kubectl(launch.stop)
        assert api.objects == {} and api.deleted[-1] == (
            *key[1:],
            {"propagationPolicy": "Foreground"},
        )
        kubectl(launch.command, "--validate=false")
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "p", "labels": created["metadata"]["labels"]},
        }
        api.objects["default", "pods", "p"] = pod
        kubectl(launch.kill)
        assert api.objects == {}
        assert {name: options["gracePeriodSeconds"] for _, name, options in api.deleted[-2:]} == {
            "visionloop-j7": 1,
            "p": 1,
        }
        kubectl(launch.kill)
        api.shutdown()
