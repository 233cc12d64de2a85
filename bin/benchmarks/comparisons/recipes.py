"""The recipe that both sides of a comparison follow, and the settings of ours that stand for it."""

from dataclasses import dataclass

from visionloop.bin.benchmarks.comparisons.cases import LOG_EVERY
from visionloop.bin.benchmarks.tasks import SIDE


@dataclass(frozen=True)
class Recipe:
    """AdamW and its schedule. warmup: share of the steps; schedule: "cosine" or "linear", to zero; clip: largest gradient norm."""

    lr: float
    weight_decay: float
    warmup: float
    schedule: str = "cosine"
    clip: float = 1.0
    beta2: float = 0.999

    def warmup_steps(self, steps):
        return int(self.warmup * steps)


# what people take who train with the Trainer; of super-resolution, which it has no example of, our
# own `tiny`
RECIPES = {
    "classification": Recipe(lr=1e-3, weight_decay=0.05, warmup=1 / 20),
    "detection": Recipe(lr=1e-3, weight_decay=1e-4, warmup=1 / 20),
    "segmentation": Recipe(lr=1e-3, weight_decay=0.05, warmup=1 / 40, schedule="linear", clip=0.01),
    "super_resolution": Recipe(lr=2e-3, weight_decay=0.0, warmup=1 / 20, beta2=0.99),
}
SCALE = 2  # of super-resolution
POINTS = 512  # of segmentation's masks
CROP_AREA = {
    "classification": 0.35,
    "segmentation": 0.25,
}  # smallest random crop of the other sides, as a share of the image
# the nearest that ours can be set to, besides what Recipe says
NEAREST = {
    "classification": {"crop_scale_min": 0.35, "label_smoothing": 0.0, "drop_path": 0.0, "init": "library", "mixup_off": 0.0},
    "detection": {
        "backbone_lr_scale": 1.0, "photometric": 0.5, "zoom_out": 0.0, "iou_crop": 0.0, "multi_scale": 0, "strong_share": 1.0,
    },
    "segmentation": {
        "mask_annealing": "on", "backbone_rest": 0, "layer_decay": 1.0, "decay_all": False, "init": "library", "points": POINTS,
        "color": 0.5, "scale_min": 1.0, "scale_max": 2.0,
    },
    "super_resolution": {"init": "library", "flips": True},
}  # fmt: skip
DIFFERENT = {
    "classification": "first step of warm-up: rate 0 elsewhere; class token and positions: not decayed in ours; large JPEGs: decoded at a "
    "half, a quarter or an eighth in ours",
    "detection": "start: as D-FINE's authors draw it in ours, narrower in the library; box and edge losses: over the pairs of all layers "
    "together in ours, each layer's own in the library; norms of the backbone: not decayed in ours; large JPEGs: as in classification",
    "segmentation": "points: the masks of an image choose theirs among the same candidates in ours; crops: in ours of the image's own "
    "shape, padded where the whole is shown; elsewhere a quarter to all of it, squeezed; colours: hue too in ours, at odds of one half",
    "super_resolution": "first step of warm-up: rate 0 elsewhere",
}


def settings_of(case, data, output):
    """{setting: value} of our `train` for a Case of our side."""
    settings = {
        "data": data, "output": output, "model": "tiny", "from_scratch": True, "seed": case.seed, "steps": case.steps,
        "batch_size": case.batch_size, "micro_batch": case.batch_size, SIDE.get(case.task, "image_size"): case.size,
        "precision": case.precision, "compile": case.compile, "workers": case.workers, "threads": case.threads, "device": case.device,
        "cache": case.cache, "eval_every": 0, "save_every": 0, "log_every": LOG_EVERY,
    }  # fmt: skip
    if case.task != "super_resolution":
        settings["hflip"] = case.hflip
    if case.comparison == "ours":
        return settings
    recipe = RECIPES[case.task]
    warmup = recipe.warmup_steps(case.steps)
    settings |= {
        "optimizer": "adamw", "lr": recipe.lr, "lr_min": 0.0, "weight_decay": recipe.weight_decay, "beta2": recipe.beta2,
        "warmup_steps": warmup, "clip_grad": recipe.clip, "ema": False,
        "schedule": "cosine" if recipe.schedule == "cosine" else "poly", "schedule_power": 1.0,
    }  # fmt: skip
    settings |= NEAREST[case.task]
    if case.task == "classification":
        settings["mixup"] = case.mixup
    elif case.task == "segmentation":
        settings["backbone_warmup"] = warmup
    return settings


def arguments_of(settings):
    """The same as words of a command line."""
    words = []
    for name, value in settings.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words += (
                []
                if name == "from_scratch" and not value
                else [f"--{flag}" if value else f"--no-{flag}"]
            )
        else:
            words += [f"--{flag}", str(value)]
    return words
