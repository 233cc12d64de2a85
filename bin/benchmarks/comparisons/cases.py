"""Which runs a comparison is made of, and in which order."""

from dataclasses import dataclass

# task -> steps, batch size, side of the training images or crops in pixels (of `tiny`), precision
DEFAULTS = {
    "classification": (1000, 32, 64, "bf16"),
    "detection": (1500, 8, 256, "fp32"),
    "segmentation": (400, 8, 96, "fp32"),
    "super_resolution": (3000, 4, 24, "fp32"),
}
SPEED_STEPS = 60
WARM = 10  # steps that no rate counts
# steps, on every side; ours draws images the first time, which is then among those that no rate
# counts
LOG_EVERY = 5
# where ours keeps decoded images; no flag of the other sides does
CACHES = {
    "classification": "ram",
    "detection": "ram",
    "segmentation": "ram",
    "super_resolution": "disk",
}
# a side's own words for a lower precision and for compilation
WORDS = {
    "trainer": ("{0}=True", "torch_compile=True"),
    "timm": ("autocast {0}", "torch.compile"),
    "visionloop": ("--precision {0}", "--compile"),
}
PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class Case:
    """One run in a process of its own: all that decides about its figures, besides data, versions and machine.

    side: "trainer", "timm" or "visionloop"; comparison: "same" (recipe), "ours" (our preset) or
    "speed" (nothing is scored); size: side of the training images, of super-resolution's input
    crops, in pixels; keep: ours keeps decoded images; core: the one that the process may run on,
    None: any; mixup: alpha, 0: none.
    """

    side: str
    task: str
    comparison: str
    seed: int
    steps: int
    batch_size: int
    size: int
    precision: str
    compile: bool = False
    keep: bool = False
    hflip: bool = True
    mixup: float = 0.0
    workers: int = 0
    threads: int = 1
    device: str = "cpu"
    core: int | None = None

    @property
    def scored(self):
        return self.comparison != "speed"

    @property
    def flags(self):
        """What was chosen for speed, in the side's own words."""
        low = self.precision != "fp32"
        precision, compiled = WORDS[self.side]
        words = [precision.format(self.precision) if low else "fp32"] + [compiled] * self.compile
        return " ".join(words + [f"--cache {self.cache}"] * (self.side == "visionloop"))

    @property
    def cache(self):
        """The value of our --cache."""
        return CACHES[self.task] if self.keep else "none"

    @property
    def title(self):
        return f"{self.task}, {self.comparison}, seed {self.seed}, {self.side}, {self.flags}"


def sides_of(task_name, mixup=0.0):
    """What is compared in a task. The Trainer has no mixing of its own: it is left out where images are mixed."""
    return (
        ("trainer",) * (not mixup) + ("timm",) * (task_name == "classification") + ("visionloop",)
    )


def scored_cases(task_name, comparisons, seeds, **shared):
    """[Case] of whole runs: seed by seed all sides in turn, so that a ratio is of one moment. comparisons: "same", "ours" or both."""
    cases = []
    for seed in range(seeds):
        others = [side for side in sides_of(task_name) if side != "visionloop"]
        cases += [Case(side, task_name, "same", seed, **shared) for side in others]
        cases += [
            Case("visionloop", task_name, name, seed, keep=name == "ours", **shared)
            for name in comparisons
        ]
    return cases


def speed_cases(task_name, repeats, best_flags, **shared):
    """[Case] of short runs: repeat by repeat, whose number is the seed, all sides in turn; ours also with kept images, its default.

    best_flags: each side in all its ways too; ours keeps decoded images in them.
    """
    cases, ways = [], [{}]
    if best_flags:
        ways += [
            {"precision": name, "compile": compiled, "keep": True}
            for name in PRECISIONS
            for compiled in (False, True)
        ]
    for repeat in range(repeats):
        for way in ways:
            for side in sides_of(task_name, shared.get("mixup", 0.0)):
                own = way if side == "visionloop" else way | {"keep": False}
                cases.append(Case(side, task_name, "speed", repeat, **shared | own))
            if not way:
                cases.append(Case("visionloop", task_name, "speed", repeat, **shared, keep=True))
    return list(dict.fromkeys(cases))  # one of the ways is the equal one
