"""What `selftest` tries on a machine, in order of importance. No torch here: `--list` must be quick."""

from dataclasses import dataclass

from visionloop.bin.benchmarks.tasks import STEADY


@dataclass(frozen=True)
class Check:
    """One check. kind: what is tried; proves: a sentence, true when it is ok; task: of the four, None where one trial is for all."""

    kind: str
    proves: str
    task: str | None = None

    @property
    def name(self):
        return f"{self.kind}:{self.task}" if self.task else self.kind


# kind -> what it proves
ONCE = {
    "health": "the command `health` finds the machine usable",
    "bad-step": "a step whose gradient is not finite changes no bit of weights, moments, average and BatchNorm statistics",
    "pinned": "batches lie in pinned memory, and copies that the host does not wait for arrive whole",
    "async-save": "a checkpoint copied from the device while the run goes on holds the same bytes as one that the run waits for",
    "tf32": "`--no-tf32` multiplies in fp32, the default in TF32, each as exactly as its number of bits says",
    "torchrun-all": "a run on every device under torchrun is stopped, goes on, and ends as one that was not",
    "mps": "every task trains on a Metal device",
}
EACH_TASK = {
    "precision": "bf16 and fp16 autocast train, close to fp32, with weights, moments and losses in fp32",
    "host-sync": "between log steps the host waits for the device in the matcher's one copy alone (and where the library's D-FINE does)",
    "same-bytes": "stopped by SIGTERM and gone on with, a run ends with the same bytes; detection on CUDA: order, counts, losses to 1e-5",
    "ranks": "two processes give the gradient of one to 1e-5, and its scores",
    "torchrun": "the same as same-bytes, of two processes under torchrun (nccl on CUDA, gloo on the CPU)",
    "recompute": "gradient checkpointing gives equal gradients, and keeps less in memory",
    "named-model": "the named model takes a training step in bf16 from random weights: its speed and peak memory",
    "compile": "`--compile` trains, and its first loss is that of a run without it",
}
ORDER = (
    "health", "precision", "bad-step", "host-sync", "same-bytes", "ranks", "torchrun", "async-save", "recompute", "pinned", "tf32",
    "torchrun-all", "named-model", "compile", "mps",
)  # fmt: skip
CHECKS = [
    check
    for kind in ORDER
    for check in (
        [Check(kind, ONCE[kind])]
        if kind in ONCE
        else [Check(kind, EACH_TASK[kind], task) for task in STEADY]
    )
]


def choose(names):
    """The checks of these names or kinds, in their order; all without a name. Raises ValueError for a name that there is not."""
    known = {check.name for check in CHECKS} | set(ORDER)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(
            f"no check {unknown[0]!r}; there are {', '.join(ORDER)}, and each with a task as in precision:detection"
        )
    return [check for check in CHECKS if not names or {check.name, check.kind} & set(names)]
