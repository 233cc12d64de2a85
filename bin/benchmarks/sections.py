"""What `suite` runs, and how large: all of it is meant for half an hour on two cores."""

from dataclasses import dataclass, field

TASKS = ("classification", "detection", "segmentation", "super_resolution")
WITH_DATA = (
    "step",
    "overhead",
    "data",
    "memory",
    "evaluation",
    "scaling",
    "compare",
)  # benchmarks that --data is handed to
ALL = ("all",)


@dataclass(frozen=True)
class Section:
    """One benchmark. about: a sentence for the report; command: words of every run; by_task: {task: more words}; tasks: a run each."""

    about: str
    command: tuple[str, ...]
    by_task: dict = field(default_factory=dict)
    tasks: tuple[str, ...] = TASKS


# the batch of each `tiny`
BATCHES = {
    "classification": ("--batch-size", "32"), "detection": ("--batch-size", "8"), "segmentation": ("--batch-size", "8"),
    "super_resolution": ("--batch-size", "4"),
}  # fmt: skip
SECTIONS = {
    "startup": Section("From the command to the first step.", ("startup", "--repeats", "1"), tasks=ALL),
    "step": Section(
        "The parts of a training step, and how far it is from what the machine can multiply.", ("step", "--repeats", "3"), BATCHES
    ),
    "overhead": Section(
        "The engine over a bare loop of the same model and batches: from memory; and with loader, logging and checkpoints.",
        ("overhead", "--steps", "60", "--rung", "memory", "--rung", "checkpoints"), BATCHES,
    ),
    "data": Section(
        "Making training batches, beside other pipelines for the same work.",
        ("data", "--repeats", "3", "--batches", "4", "--workers", "0", "--workers", "1"), BATCHES,
    ),
    "loss": Section("Our criteria beside the library's.", ("loss", "--repeats", "9"), tasks=("detection", "segmentation")),
    "faults": Section("What our pages say of the library, measured again.", ("loss", "--faults"), tasks=ALL),
    "memory": Section("A step's memory with activations kept and recomputed.", ("memory", "--repeats", "1"), BATCHES),
    "on-paper": Section("The memory of large models, at their full size.", ("on-paper",), tasks=("segmentation",)),
    "evaluation": Section(
        "Metrics alone on made-up images, and a whole evaluation part by part.", ("evaluation", "--images", "200", "--repeats", "1")
    ),
    "scaling": Section("Two processes beside one.", ("scaling", "--repeats", "3")),
    "predict": Section(
        "Latency and throughput of `predict`.", ("predict", "--repeats", "1"),
        dict.fromkeys(TASKS, ("--images", "16", "--batch-size", "1", "--batch-size", "8"))
        | {"super_resolution": ("--images", "1", "--image-size", "288x224")},
    ),
    "estimate": Section("What `check` expects of a run, and what the run takes.", ("estimate", "--steps", "40"), tasks=ALL),
    "compare": Section(
        "Beside transformers' Trainer, and timm for classification: the same work, samples a second with data included.",
        ("compare", "--comparison", "speed", "--steps", "30", "--repeats", "1"),
    ),
}  # fmt: skip
NO_THREADS = ("on-paper",)


def arguments_of(name, task, folders, threads):
    """Words of the command line of one run. folders: {task: data folder}."""
    section = SECTIONS[name]
    words = [
        *section.command,
        *([] if (task,) == ALL else ["--task", task]),
        *section.by_task.get(task, ()),
    ]
    if name in WITH_DATA and task in folders:
        words += ["--data", folders[task]]
    return words if name in NO_THREADS else [*words, "--threads", str(threads)]
