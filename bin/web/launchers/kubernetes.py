"""A training on Kubernetes: a Job, or with several nodes a JobSet, as a manifest."""

import os
from pathlib import Path

import yaml

from visionloop.bin.web.jobs.spec import JobSpec
from visionloop.bin.web.launchers.container import (
    container_command,
    job_name,
    named_paths,
    run_folder,
)
from visionloop.bin.web.launchers.launch import KubernetesOptions, Launch
from visionloop.engine.errors import STOPPED, USER_ERROR, UserError
from visionloop.engine.types import JsonObject

MANIFEST = "manifest.yaml"
CONTAINER = "train"
GROUP = "node"  # of the JobSet: the only group of pods
LABEL = "visionloop/job"
USER = 1000  # of the images
GRACE_SECONDS = 180  # above the time that the entry leaves for a checkpoint
# a pod that is stopped or lost is not counted; one that crashes is started again so often
BACKOFF_LIMIT = 3
# prints nothing for an object that has ended
ALIVE = (
    '{{range .items}}{{$over := false}}{{range .status.conditions}}{{if eq .status "True"}}'
    '{{if or (eq .type "Complete") (eq .type "Completed") (eq .type "Failed")}}{{$over = true}}'
    "{{end}}{{end}}{{end}}{{if not $over}}{{.metadata.name}}{{end}}{{end}}"
)


class ManifestDumper(yaml.SafeDumper):
    """YAML that people read, and that kubectl reads as it is meant."""

    def ignore_aliases(self, data: object) -> bool:
        return True  # a value that occurs twice is written twice

    def represent_text(self, text: str) -> yaml.ScalarNode:
        """Quote all but words: 1e-4 is a text to PyYAML and a number to kubectl."""
        is_word = text[:1].isalpha() or text[:1] == "/"
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=None if is_word else "'")


ManifestDumper.add_representer(str, ManifestDumper.represent_text)


def kubernetes_launch(spec: JobSpec, options: KubernetesOptions, job_folder: Path) -> Launch:
    """Return the launch of a Job or JobSet.

    `command` hands over the manifest in the job's folder and ends. It replaces an object that has
    ended: `kubectl apply` would leave that as it is, and a resumed job would not start. The claims
    must hold the same folders at the same paths as on this machine, where the state is read from
    the run folder.

    Raises UserError where no claim is mounted above a path that the job names.
    """
    require_mounts(spec, options)
    path = str(job_folder / MANIFEST)
    kubectl = ("kubectl", "--namespace", options.namespace)
    kind = "job" if options.nodes == 1 else "jobset"
    delete = (*kubectl, "delete", "--ignore-not-found", "--selector", f"{LABEL}={spec.id.lower()}")
    content = manifest(spec, options)
    text = yaml.dump(content, Dumper=ManifestDumper, sort_keys=False, width=100, allow_unicode=True)
    return Launch(
        command=(*kubectl, "replace", "--force", "--filename", path),
        files={path: text},
        # its pods get SIGTERM and their grace period; it is gone after them
        stop=(*delete, "--cascade=foreground", "--wait=false", kind),
        kill=(*delete, "--grace-period=1", f"{kind},pod"),
        submits=True,
        probe=(
            *(*kubectl, "get", kind, "--selector", f"{LABEL}={spec.id.lower()}"),
            *("--output", f"go-template={ALIVE}"),
        ),
    )


def require_mounts(spec: JobSpec, options: KubernetesOptions) -> None:
    """Raise UserError unless every path of the job is below a mounted claim."""
    folders = [Path(mount.path) for mount in options.mounts]
    for path in (run_folder(spec), *named_paths(spec)):
        place = Path(os.path.normpath(path))
        if not any(place.is_relative_to(folder) for folder in folders):
            mounted = ", ".join(map(str, folders)) or "none"
            raise UserError(
                f"{path}: expected a path below a mounted claim (mounted: {mounted})",
                field="launcher.mounts",
                hint="mount the claim that holds this folder at its path on this machine",
            )


def manifest(spec: JobSpec, options: KubernetesOptions) -> JsonObject:
    """Return the Job, or the JobSet of one indexed Job whose pods are the nodes."""
    labels = {"app.kubernetes.io/name": "visionloop", LABEL: spec.id.lower()}
    metadata = {"name": job_name(spec), "namespace": options.namespace, "labels": labels}
    job = job_spec(spec, options, labels)
    if options.nodes == 1:
        return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": job}
    # one Job fails (a mistake in the input, or too many crashes): so does the JobSet
    template = {"metadata": {"labels": labels}, "spec": job}
    group = {"name": GROUP, "replicas": 1, "template": template}
    jobs = {"failurePolicy": {"maxRestarts": 0}, "replicatedJobs": [group]}
    api = "jobset.x-k8s.io/v1alpha2"
    return {"apiVersion": api, "kind": "JobSet", "metadata": metadata, "spec": jobs}


def job_spec(spec: JobSpec, options: KubernetesOptions, labels: dict[str, str]) -> JsonObject:
    """Return the `spec` of a Job: ends that count, ends that do not, and its pods."""

    def on_exit(action: str, code: int) -> JsonObject:
        codes = {"containerName": CONTAINER, "operator": "In", "values": [code]}
        return {"action": action, "onExitCodes": codes}

    disrupted = [{"type": "DisruptionTarget", "status": "True"}]  # preempted, drained, evicted
    rules = [
        on_exit("FailJob", USER_ERROR),
        on_exit("Ignore", STOPPED),
        {"action": "Ignore", "onPodConditions": disrupted},
    ]
    job: JsonObject = {
        "backoffLimit": BACKOFF_LIMIT,
        "completionMode": "Indexed",
        "completions": options.nodes,
        "parallelism": options.nodes,
        "podFailurePolicy": {"rules": rules},
        # two pods must not write one run folder
        "podReplacementPolicy": "Failed",
        "template": {"metadata": {"labels": labels}, "spec": pod_spec(spec, options)},
    }
    if options.nodes > 1:
        # process 0 writes the end of the run: when its node has ended, the run is finished
        job["successPolicy"] = {"rules": [{"succeededIndexes": "0"}]}
    return job


def pod_spec(spec: JobSpec, options: KubernetesOptions) -> JsonObject:
    """Return the `spec` of a pod."""
    claims = list(dict.fromkeys(mount.claim for mount in options.mounts))
    names = {claim: f"claim-{number}" for number, claim in enumerate(claims)}
    volumes: list[JsonObject] = [
        {"name": name, "persistentVolumeClaim": {"claimName": claim}}
        for claim, name in names.items()
    ]
    # loader workers hand images over in shared memory; it counts as memory of the container
    size = f"{options.shared_memory_gib}Gi"
    volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": size}})
    mounts = [{"name": names[mount.claim], "mountPath": mount.path} for mount in options.mounts]
    mounts.append({"name": "shm", "mountPath": "/dev/shm"})
    limits = {"cpu": str(options.cpus), "memory": f"{options.memory_gib}Gi"}
    if options.gpus_per_node:
        limits["nvidia.com/gpu"] = str(options.gpus_per_node)
    container = {
        "name": CONTAINER,
        "image": options.image,
        "command": [literal(word) for word in pod_command(spec, options)],
        "resources": {"requests": limits, "limits": limits},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": volumes,
    }


def pod_command(spec: JobSpec, options: KubernetesOptions) -> tuple[str, ...]:
    """Return the command of a pod; its index, which the Job sets, is the rank of the node."""
    words = ["--processes", str(options.gpus_per_node or options.processes)]
    if options.nodes > 1:
        name = job_name(spec)
        # JobSet gives its pods names in the cluster: SET-GROUP-JOB-POD.SET
        first = f"{name}-{GROUP}-0-0.{name}"
        words += ["--nodes", str(options.nodes), "--master-address", first]
    return container_command(spec, *words)


def literal(word: str) -> str:
    """Return a word that Kubernetes leaves as it is: it replaces $(NAME), and $$ by $."""
    return word.replace("$", "$$")
