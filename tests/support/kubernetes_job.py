"""A stand-in of Kubernetes' Job controller: the pods of an Indexed Job are processes here.

It follows podFailurePolicy, backoffLimit and successPolicy as batch/v1 describes them. All pods
share this machine, so a pod's name is not looked up.
"""

import os
import signal
import subprocess
import sys
import time

from slurm_cluster import processes

COUNTED, IGNORED, FATAL = "Count", "Ignore", "FailJob"


class Pod:
    """A pod: one container, whose processes carry the pod's name in their environment."""

    def __init__(self, name, index, command, environment, log):
        self.index, self.mark, self.is_disrupted = index, f"POD={name}", False
        variables = environment | {"POD": name, "JOB_COMPLETION_INDEX": str(index)}
        with open(log, "a") as output:
            self.process = subprocess.Popen(command, env=variables, stdout=output, stderr=output)

    def conditions(self):
        return [("DisruptionTarget", "True")] if self.is_disrupted else []

    def exit_code(self):
        """Exit code of the container, 128 + number for a signal; None while it runs."""
        code = self.process.poll()
        return code if code is None or code >= 0 else 128 - code

    def drain(self):
        """Evict the pod: its first process gets SIGTERM."""
        self.is_disrupted = True
        self.process.send_signal(signal.SIGTERM)

    def kill(self):
        """End all processes of the pod, as the crash of a container does."""
        for process in processes():
            if self.mark in process.variables():
                process.kill()


class JobController:
    """The pods of a Job. Use it in a `with` statement.

    Args:
        job: the object, as in a manifest.
        command: of the container, with paths and addresses of this machine.
        folder: for logs.

    Attributes:
        ends: [(index, exit code, what was done about it)] of ended pods.
        condition: "Complete" or "Failed", None before.
    """

    def __init__(self, job, command, environment, folder):
        self.spec, self.command, self.environment = job["spec"], command, environment
        self.log, self.started, self.ends = folder / "pods.log", 0, []
        self.succeeded, self.failures, self.condition = set(), 0, None
        assert self.spec["completionMode"] == "Indexed"
        assert self.spec["parallelism"] == self.spec["completions"]

    def __enter__(self):
        self.pods = {}
        for index in range(self.spec["completions"]):
            self.start(index)
        return self

    def __exit__(self, *_):
        for pod in self.pods.values():
            pod.kill()
            pod.process.wait()

    def start(self, index):
        self.started += 1
        name = f"{os.getpid()}-{id(self)}-{self.started}"
        self.pods[index] = Pod(name, index, self.command, self.environment, self.log)

    def said(self):
        return self.log.read_text(errors="replace")

    def action(self, pod):
        """The action of the first rule that fits."""
        container = self.spec["template"]["spec"]["containers"][0]["name"]
        for rule in self.spec["podFailurePolicy"]["rules"]:
            if codes := rule.get("onExitCodes"):
                assert codes["operator"] == "In" and codes["containerName"] == container
                fits = pod.exit_code() in codes["values"]
            else:
                wanted = [(row["type"], row["status"]) for row in rule["onPodConditions"]]
                fits = any(condition in wanted for condition in pod.conditions())
            if fits:
                return rule["action"]
        return COUNTED

    def reconcile(self):
        """Handle the pods that have ended; start the ones that are missing."""
        for index, pod in list(self.pods.items()):
            code = pod.exit_code()
            if code is None or index in self.succeeded:
                continue
            if code == 0:
                self.succeeded.add(index)
                self.ends.append((index, 0, "Succeeded"))
                continue
            action = self.action(pod)
            self.ends.append((index, code, action))
            self.failures += action == COUNTED
            if action == FATAL or self.failures > self.spec["backoffLimit"]:
                self.condition = "Failed"
                return
            pod.kill()
            self.start(index)
        enough = {int(rule["succeededIndexes"]) for rule in self.spec["successPolicy"]["rules"]}
        if enough <= self.succeeded:
            self.condition = "Complete"

    def run_until(self, condition, seconds):
        """Act as the controller until the condition holds."""
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < deadline, f"{self.ends}\n{self.said()}"
            self.reconcile()
            time.sleep(0.1)
        return found

    def run_to_the_end(self, seconds):
        """Return the condition of the Job at its end."""
        return self.run_until(lambda: self.condition, seconds)


def local_command(job, **replaced):
    """The container's command with words replaced, as this environment runs it."""
    words = job["spec"]["template"]["spec"]["containers"][0]["command"]
    assert words[0] == "visionloop-launch" and replaced.keys() <= set(words)
    return [sys.executable, "-P", "-m", "visionloop.bin.launch"] + [
        replaced.get(word, word) for word in words[1:]
    ]
