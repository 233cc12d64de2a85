"""docker/kubernetes.yaml: its objects fit together, and a Job of it survives the loss of a node.

No cluster runs: the pods are processes here, and tests/support/kubernetes_job.py acts as the
controller.
"""

import copy
import json
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from environments import ROOT
from kubernetes_job import JobController, local_command
from torchrun_runs import ENVIRONMENT, OPTIONS, SIZE, bytes_of, left_behind, write_classification

from visionloop.bin.launches.command import SHUTDOWN_SECONDS, Nodes
from visionloop.bin.web.jobs.spec import JobKind, JobSpec
from visionloop.bin.web.launchers.kubernetes import manifest
from visionloop.bin.web.launchers.launch import ClaimMount, KubernetesOptions
from visionloop.engine.testing.short_runs import free_port

VERSIONS = ("1.31", "1.34", "1.37")  # of Kubernetes
STEPS = 100
LENGTH = ["--steps", str(STEPS), "--save-every", "20", "--eval-every", "50", "--workers", "0"]
LONGEST = 600  # seconds that a run of two pods may take on a loaded machine


@pytest.fixture(scope="module")
def objects():
    text = (ROOT / "docker/kubernetes.yaml").read_text()
    return {item["kind"]: item for item in yaml.safe_load_all(text)}


@pytest.fixture
def service(objects):
    return copy.deepcopy(objects["Service"])


@pytest.fixture
def job(objects):
    return copy.deepcopy(objects["Job"])


def pod_of(job):
    return job["spec"]["template"]["spec"]


def container_of(job):
    (container,) = pod_of(job)["containers"]
    return container


def option(job, name):
    command = container_of(job)["command"]
    return command[command.index(name) + 1]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_objects_have_the_published_schema(service, job, version):
    for item in (service, job):
        kubernetes_validate.validate(item, version, strict=True)
    job["spec"]["podFailurePolicy"]["rule"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, version, strict=True)


def test_the_service_selects_the_pods_and_names_them(service, job):
    selector, labels = service["spec"]["selector"], job["spec"]["template"]["metadata"]["labels"]
    assert selector and selector.items() <= labels.items()
    assert service["spec"]["clusterIP"] == "None" and service["spec"]["publishNotReadyAddresses"]
    assert pod_of(job)["subdomain"] == service["metadata"]["name"]
    assert service["metadata"].get("namespace") == job["metadata"].get("namespace")
    # an Indexed Job calls its pods JOB-INDEX
    first = f"{job['metadata']['name']}-0.{service['metadata']['name']}"
    assert option(job, "--master-address") == first


def test_the_port_is_that_of_the_first_node(service, job):
    port = Nodes().port
    assert "--master-port" not in container_of(job)["command"]
    assert [row["port"] for row in service["spec"]["ports"]] == [port]
    assert [row["containerPort"] for row in container_of(job)["ports"]] == [port]


def test_each_index_is_a_node_and_each_gpu_a_process(job):
    spec, resources = job["spec"], container_of(job)["resources"]
    assert spec["completionMode"] == "Indexed"
    nodes = int(option(job, "--nodes"))
    assert spec["completions"] == spec["parallelism"] == nodes > 1
    # the node's rank is the index that Kubernetes sets
    assert "--node-rank" not in container_of(job)["command"]
    assert resources["limits"]["nvidia.com/gpu"] == option(job, "--processes")
    assert resources["requests"] == resources["limits"]


def test_a_pod_has_the_time_that_a_checkpoint_takes(job):
    assert pod_of(job)["terminationGracePeriodSeconds"] > SHUTDOWN_SECONDS + 30


def test_the_job_is_the_one_that_the_studio_makes(job):
    """But for the name of node 0, which a JobSet gives and here a Service."""
    container = container_of(job)
    claims = {
        volume["name"]: volume["persistentVolumeClaim"]["claimName"]
        for volume in pod_of(job)["volumes"]
        if "persistentVolumeClaim" in volume
    }
    mounts = [
        ClaimMount(claim=claims[mount["name"]], path=mount["mountPath"])
        for mount in container["volumeMounts"]
        if mount["name"] in claims
    ]
    options = KubernetesOptions(
        kind="kubernetes",
        image=container["image"],
        nodes=int(option(job, "--nodes")),
        gpus_per_node=int(option(job, "--processes")),
        cpus=int(container["resources"]["limits"]["cpu"]),
        memory_gib=int(container["resources"]["limits"]["memory"].removesuffix("Gi")),
        mounts=mounts,
    )
    task = container["command"].index("--master-address") + 2
    name, run, *words = container["command"][task:]
    spec = JobSpec("flowers", JobKind.TRAIN, name, Path(run), tuple(words))
    ours = manifest(spec, options)
    assert ours["metadata"]["labels"] == job["metadata"]["labels"]
    (group,) = ours["spec"]["replicatedJobs"]
    expected = group["template"]["spec"]
    pod = expected["template"]["spec"]
    pod["subdomain"] = pod_of(job)["subdomain"]
    pod["containers"][0]["ports"] = container["ports"]
    address = pod["containers"][0]["command"].index("--master-address") + 1
    pod["containers"][0]["command"][address] = option(job, "--master-address")
    assert job["spec"] == expected


class Training:
    """The Job's command with a small model in a folder here."""

    def __init__(self, job, images, folder):
        self.run, self.folder = folder / "run", folder
        command = local_command(
            job,
            **{
                "8": "1",
                option(job, "--master-address"): "127.0.0.1",
                "/workspace/runs/flowers": str(self.run),
                "/data": str(images),
            },
        )
        model = command.index("--model")
        command[model : model + 2] = [*SIZE["classification"], *OPTIONS, *LENGTH]
        port = ["--master-port", str(free_port())]
        command[command.index("--nodes") : command.index("--nodes")] = port
        self.controller = JobController(job, command, ENVIRONMENT, folder)

    def __enter__(self):
        self.controller.__enter__()
        return self

    def __exit__(self, *error):
        self.controller.__exit__(*error)

    @property
    def pods(self):
        return self.controller.pods

    def wait_for_step(self, step):
        checkpoint = self.run / f"checkpoints/step_{step:08d}"
        self.controller.run_until(checkpoint.exists, LONGEST)

    def condition(self):
        return self.controller.run_to_the_end(LONGEST)

    def failed_starts(self):
        """[(index, exit code, action)] of the pods that did not succeed."""
        return [(index, code, action) for index, code, action in self.controller.ends if code]

    def content(self):
        """Hashes of the last checkpoint and of best/, and the logged numbers."""
        assert json.loads((self.run / "status.json").read_text())["state"] == "finished"
        return bytes_of(self.run, STEPS)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_classification(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="module")
def undisturbed(objects, images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    with Training(objects["Job"], images, folder) as training:
        assert training.condition() == "Complete" and training.failed_starts() == []
        return training.content()


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_the_loss_of_a_node_starts_both_again_and_counts_once(
    job, images, undisturbed, tmp_path, lost
):
    with Training(job, images, tmp_path) as training:
        training.wait_for_step(20)
        training.pods[lost].kill()
        assert training.condition() == "Complete", training.controller.said()
        other = 1 - lost
        assert sorted(training.failed_starts()) == sorted(
            [(lost, 137, "Count"), (other, 75, "Ignore")]
        )
        assert "resuming after step" in training.controller.said()
        assert training.content() == undisturbed


@pytest.mark.slow
def test_an_evicted_node_saves_and_both_start_again_uncounted(job, images, undisturbed, tmp_path):
    with Training(job, images, tmp_path) as training:
        training.wait_for_step(20)
        training.pods[1].drain()
        assert training.condition() == "Complete", training.controller.said()
        assert sorted(training.failed_starts()) == [(0, 75, "Ignore"), (1, 75, "Ignore")]
        assert "stopped and saved after step" in training.controller.said()
        assert training.content() == undisturbed


@pytest.mark.slow
def test_a_job_without_its_data_folder_fails_at_once(job, tmp_path):
    with Training(job, tmp_path / "no images", tmp_path) as training:
        assert training.condition() == "Failed"
        assert {row[1:] for row in training.failed_starts()} == {(2, "FailJob")}
        assert training.controller.started == 2, "started again"
    assert left_behind(str(training.run)) == []
