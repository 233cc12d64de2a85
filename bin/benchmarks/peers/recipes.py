"""Runs of a comparison, the recipe of all implementations, visionloop's settings for it."""

from dataclasses import dataclass
from typing import NamedTuple

from visionloop.bin.benchmarks.results import Row, Value
from visionloop.bin.benchmarks.tasks import SIZE_SETTING

SAME_RECIPE, OWN_PRESET, SPEED = COMPARISONS = ("same-recipe", "own-preset", "speed")
SPEED_STEPS = 60
WARM_STEPS = 10  # that no throughput counts
# Steps, for every implementation. visionloop draws images at the first one, which is then among
# those that no throughput counts.
LOG_EVERY = 5
# of `tiny`; image_size: of super-resolution's input crops
DEFAULTS: dict[str, Row] = {
    "classification": dict(steps=1000, batch_size=32, image_size=64),
    "detection": dict(steps=1500, batch_size=8, image_size=256, precision="fp32"),
    "segmentation": dict(steps=400, batch_size=8, image_size=96, precision="fp32"),
    "instance_segmentation": dict(
        steps=800, batch_size=8, image_size=256, precision="fp32", num_queries=100
    ),
    "panoptic_segmentation": dict(
        steps=800, batch_size=8, image_size=256, precision="fp32", num_queries=100
    ),
    "super_resolution": dict(steps=3000, batch_size=4, image_size=24, precision="fp32"),
}


@dataclass(frozen=True)
class Case:
    """One run in a process of its own: what decides its figures besides data, versions, machine.

    implementation: "trainer", "timm" or "visionloop"; comparison: of COMPARISONS; cached: with
    decoded images kept by visionloop; num_queries: of instance and panoptic segmentation.
    """

    implementation: str
    task: str
    comparison: str
    seed: int
    steps: int
    batch_size: int
    image_size: int
    precision: str
    cached: bool = False
    hflip: bool = True
    workers: int = 0
    threads: int = 1
    device: str = "cpu"
    num_queries: int | None = None

    @property
    def cache(self) -> str:
        """The value of visionloop's --cache; the others have no such flag."""
        if not self.cached:
            return "none"
        return "disk" if self.task == "super_resolution" else "ram"

    @property
    def title(self) -> str:
        cache = f" --cache {self.cache}" if self.implementation == "visionloop" else ""
        return f"{self.implementation} {self.precision}{cache}"


def plan_cases(
    task_name: str, comparisons: tuple[str, ...], repeats: int, **shared: Value
) -> list[Case]:
    """Return the runs of a task, interleaved: for each seed all implementations.

    For speed, which is not scored, visionloop also runs with cached images, its default.
    """
    others = ("trainer", "timm") if task_name == "classification" else ("trainer",)
    steps, cases = shared.pop("steps"), []
    for kinds in ((SAME_RECIPE, OWN_PRESET), (SPEED,)):
        for seed in range(repeats):
            chosen = [kind for kind in kinds if kind in comparisons]
            default = SPEED_STEPS if SPEED in kinds else DEFAULTS[task_name]["steps"]
            own = DEFAULTS[task_name] | shared | {"steps": steps or default, "seed": seed}
            for name in others if chosen else ():
                cases.append(Case(name, task_name, kinds[0], **own))
            for kind in chosen:
                for cached in (False, True) if kind == SPEED else (kind == OWN_PRESET,):
                    cases.append(Case("visionloop", task_name, kind, cached=cached, **own))
    return cases


class Recipe(NamedTuple):
    """AdamW and its learning-rate schedule to zero. warmup: share of the steps."""

    lr: float
    weight_decay: float
    warmup: float
    schedule: str = "cosine"  # or "linear"
    clip: float = 1.0  # largest gradient norm
    beta2: float = 0.999

    def warmup_steps(self, steps: int) -> int:
        return int(self.warmup * steps)


EOMT = ("segmentation", "instance_segmentation", "panoptic_segmentation")
# common settings of the Trainer's users; super-resolution, without an example: those of `tiny`
RECIPES = {
    "classification": Recipe(1e-3, 0.05, 1 / 20),
    "detection": Recipe(1e-3, 1e-4, 1 / 20),
    **dict.fromkeys(EOMT, Recipe(1e-3, 0.05, 1 / 40, schedule="linear", clip=0.01)),
    "super_resolution": Recipe(2e-3, 0.0, 1 / 20, beta2=0.99),
}
UPSCALE_FACTOR = 2  # of super-resolution
NUM_POINTS = 512  # sampled per mask in segmentation
# smallest random crop of the other implementations, as a share of the image's area
SMALLEST_CROP = {"classification": 0.35} | dict.fromkeys(EOMT, 0.25)
# visionloop's settings that come nearest to the others, besides those of Recipe
NEAREST_SETTINGS: dict[str, Row] = {
    "classification": dict(
        crop_scale_min=0.35, label_smoothing=0.0, drop_path=0.0, init="transformers", mixup=0.0,
        mixup_off=0.0,
    ),
    "detection": dict(
        backbone_lr_scale=1.0, photometric=0.5, zoom_out=0.0, iou_crop=0.0, multi_scale=0,
        strong_share=1.0,
    ),
    **{name: dict(
        mask_annealing="on", backbone_rest=0, layer_decay=1.0, decay_all=False, init="transformers",
        points=NUM_POINTS, color=0.5, scale_min=1.0, scale_max=2.0,
    ) for name in EOMT},
    "super_resolution": dict(init="transformers", flips=True),
}  # fmt: skip
# how "same-recipe" still differs
DIFFERENCES = {
    "classification": "first warm-up step: learning rate 0 in the others; class token and position"
    " embeddings: no weight decay in visionloop; large JPEGs: decoded smaller in visionloop",
    "detection": "initial weights: as D-FINE's authors draw them in visionloop, narrower in"
    " transformers; box and FDR losses: over the matches of all layers together in visionloop, each"
    " layer's own in transformers; normalisation layers of the backbone: no weight decay in"
    " visionloop; large JPEGs: as in classification",
    **dict.fromkeys(
        EOMT,
        "sampled points: the masks of an image choose theirs among the same"
        " candidates in visionloop; crops: of the image's own shape in visionloop, padded where the"
        " whole image is used; a quarter to all of it, squeezed, in the others; colour jitter: hue"
        " too in visionloop, with probability 0.5",
    ),
    "super_resolution": "first warm-up step: learning rate 0 in the Trainer",
}


def visionloop_settings(case: Case, data: str, output: str) -> Row:
    """Return {setting: value} of visionloop's `train` for a Case."""
    settings: Row = dict(
        data=data, output=output, model="tiny", from_scratch=True, seed=case.seed, steps=case.steps,
        batch_size=case.batch_size, micro_batch=case.batch_size, precision=case.precision,
        workers=case.workers, threads=case.threads, device=case.device, cache=case.cache,
        eval_every=0, save_every=0, log_every=LOG_EVERY,
    )  # fmt: skip
    settings[SIZE_SETTING.get(case.task, "image_size")] = case.image_size
    if case.num_queries:
        settings["num_queries"] = case.num_queries
    if case.task != "super_resolution":
        settings["hflip"] = case.hflip
    if case.comparison == OWN_PRESET:
        return settings
    recipe = RECIPES[case.task]
    warmup = recipe.warmup_steps(case.steps)
    if case.task in EOMT:
        settings["backbone_warmup"] = warmup
    return settings | NEAREST_SETTINGS[case.task] | dict(
        optimizer="adamw", lr=recipe.lr, lr_min=0.0, weight_decay=recipe.weight_decay,
        beta2=recipe.beta2, warmup_steps=warmup, clip_grad=recipe.clip, ema=False,
        schedule="cosine" if recipe.schedule == "cosine" else "poly", schedule_power=1.0,
    )  # fmt: skip


def command_line_of(settings: Row) -> list[str]:
    """Return settings as the words of a command line."""
    words = []
    for name, value in settings.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", str(value)]
    return words
