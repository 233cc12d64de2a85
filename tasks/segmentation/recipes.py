"""Presets: what `--preset` and the size of the model change in the defaults.

finetune  a trained ViT or EoMT (default with weights): the authors' configs
scratch   random weights (default without): one warm-up for all, no decay of rates over layers;
`tiny` by our own runs short     like finetune, without masks from the first step on: for runs too
short to lift them gradually

Source: configs/**/semantic and training/lightning_module.py of `tue-mps/eomt` (commit 7bd19dd).
"""

import json
from pathlib import Path

from visionloop.tasks.segmentation.architectures import REGISTRY, RELEASED

PRESETS = ("finetune", "scratch", "short")
AUTHORS = {
    "batch_size": 16,
    "lr": 1e-4,
    "weight_decay": 0.05,
    "schedule": "poly",
    # norms are 4 to 25: every step is a normalised gradient, and the size of the loss hardly
    # matters
    "clip_grad": 0.01,
    "ema": False,
}
EPOCHS = {"finetune": 31.0, "scratch": 100.0, "short": 31.0}
# Tuned on 70 street scenes at 96 px; with the library's random start mIoU was 4 points lower after
# 400 steps.
TINY = {"batch_size": 8, "lr": 1e-3}
TINY_EPOCHS = 60.0
# share of the run; the ViT's is twice as long: the authors' 500 and 1000 of 40 000 steps
HEADS_WARMUP = 0.0125
SCRATCH_WARMUP = 0.025
# A trained EoMT needs no masks; in so few steps lifting them again costs more than it gives (recipe
# of short runs).
FEW_STEPS = 2000
# crops of 512 px that a process holds at once; --batch-size stays what it is
MICRO_BATCH = {"tiny": 32, "eomt-small": 16, "eomt-base": 8, "eomt-large": 4, "eomt-giant": 1}
MICRO_BATCH_UNKNOWN = 4


def recipe(values):
    """{setting: value} that model and preset change in the defaults. values: {setting: value} settled so far."""
    advised = REGISTRY.start(values, PRESETS)
    model, preset = advised["model"], advised["preset"]
    advised |= AUTHORS | {"layer_decay": 1.0 if preset == "scratch" else 0.8}
    endless = values["epochs"] is None and values["steps"] is None
    if size_of(model) == "tiny":
        # of a folder's own config we cannot know whether it has the plain layers of a ViT
        init = {"init": "mimetic"} if model == "tiny" else {}
        return advised | TINY | init | ({"epochs": TINY_EPOCHS} if endless else {})
    return advised | ({"epochs": EPOCHS[preset]} if endless else {})


def settle(values, steps):
    """Warm-ups and annealing as shares of the run; micro-batches by the size of the model."""
    scratch = values["preset"] == "scratch"
    warmup = max(1, round((SCRATCH_WARMUP if scratch else HEADS_WARMUP) * steps))
    known = warmup if values["warmup_steps"] is None else values["warmup_steps"]
    few = values["preset"] == "short" or (
        steps < FEW_STEPS and not values["from_scratch"] and is_trained_eomt(values["model"])
    )
    return {
        "warmup_steps": warmup,
        "backbone_rest": 0 if scratch else known,
        "backbone_warmup": known if scratch else 2 * known,
        "mask_annealing": "off" if few else "auto",
        "micro_batch": MICRO_BATCH.get(size_of(values["model"]), MICRO_BATCH_UNKNOWN),
    }


def size_of(model):
    """The name in ARCHITECTURES of a known model, or of the nearest in width of a local folder; None for any other."""
    name = REGISTRY.aliases.get(model, model)
    name = REGISTRY.architecture_of.get(name, name)
    if name in REGISTRY.architectures:
        return name
    width = _local_config(model).get("hidden_size", 0)
    widths = (
        ("tiny", 192),
        ("eomt-small", 384),
        ("eomt-base", 768),
        ("eomt-large", 1024),
        ("eomt-giant", 1536),
    )
    return next((name for name, most in widths if 0 < width <= most), None)


def is_trained_eomt(model):
    """True for released EoMT weights, by name, and for a local folder of EoMT; a plain backbone has everything to learn."""
    name = REGISTRY.aliases.get(model, model)
    released = {hub_id for ids in RELEASED.values() for hub_id in ids} | set(REGISTRY.pretrained)
    return name in released or str(_local_config(model).get("model_type", "")).startswith("eomt")


def _local_config(model):
    try:
        found = json.loads((Path(model).expanduser() / "config.json").read_text())
    except (OSError, ValueError):
        return {}  # loading it will say what is wrong
    return found if isinstance(found, dict) else {}
