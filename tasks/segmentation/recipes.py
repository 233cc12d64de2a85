"""Presets of `--preset`, and the defaults that the size of the model changes.

finetune  a trained ViT or EoMT (default with weights): the authors' configs.
scratch   random weights (default without): one warm-up for all layers, no layer decay of the
          learning rate; `tiny` by our own runs.
short     like finetune, but without masks from the first step on: for runs too short for annealing.

Semantic, instance and panoptic segmentation differ in the length of the run, the number of queries
and the augmentation. Source: configs/**/{semantic,instance,panoptic} and
training/lightning_module.py of `tue-mps/eomt` (commit 7bd19dd).
"""

from dataclasses import dataclass, field

from visionloop.engine.types import JsonObject
from visionloop.tasks.huggingface.hub import ModelNames, local_config
from visionloop.tasks.segmentation.architectures import MODEL_NAMES

PRESETS = ("finetune", "scratch", "short")
AUTHORS = {
    "batch_size": 16,
    "lr": 1e-4,
    "weight_decay": 0.05,
    "schedule": "poly",
    # gradient norms are 4 to 25: every step is a normalized gradient, and the size of the loss
    # hardly matters
    "clip_grad": 0.01,
    "ema": False,
}
SCRATCH_EPOCHS = 100.0
# large-scale jitter without changes of color; small models and datasets keep 0.5 to 2
SEGMENTS = {"scale_min": 0.1, "color": 0.0}
# Tuned on 70 street scenes at 96 px; with the random start of transformers mIoU was 4 points lower
# after 400 steps.
TINY = {"batch_size": 8, "lr": 1e-3}
TINY_EPOCHS = 60.0
# of --augment-only: the whole image, as large as it fits into the square
AUGMENT_ONLY = {"color": 0.0, "scale_min": 1.0, "scale_max": 1.0, "hflip": False}
# share of the run; the ViT's is twice as long: the authors' 500 and 1000 of 40 000 steps
HEADS_WARMUP = 0.0125
SCRATCH_WARMUP = 0.025
# A trained EoMT needs no masks; in so few steps annealing them again costs more than it gives
# (recipe of short runs).
FEW_STEPS = 2000
# crops of 512 px in a micro-batch; --batch-size stays what it is
MICRO_BATCH = {
    "tiny": 32,
    "eomt-small": 16,
    "eomt-base": 8,
    "eomt-large": 4,
    "eomt-giant": 1,
    "eomt-7b": 1,
}
MICRO_BATCH_UNKNOWN = 4
# name -> largest width of a model of about that size
WIDTHS = {
    "tiny": 192,
    "eomt-small": 384,
    "eomt-base": 768,
    "eomt-large": 1024,
    "eomt-giant": 1536,
    "eomt-7b": 4096,
}


@dataclass(frozen=True)
class EomtRecipe:
    """The recipe of one of the three tasks.

    names: of its models; epochs: length of a run that starts from weights; changes: of the
    defaults, for models larger than `tiny`; tiny: those for `tiny`.
    """

    names: ModelNames
    epochs: float
    changes: JsonObject = field(default_factory=dict)
    tiny: JsonObject = field(default_factory=dict)

    def recipe(self, values: JsonObject) -> JsonObject:
        """Return the defaults that model and preset change, {setting: value}.

        values: {setting: value} of all settings resolved so far. Raises UserError for an unknown
        preset.
        """
        return self._of_preset(values) | (AUGMENT_ONLY if values["augment_only"] else {})

    def _of_preset(self, values: JsonObject) -> JsonObject:
        changes = self.names.start(values, PRESETS)
        model, preset = changes["model"], changes["preset"]
        changes |= AUTHORS | {"layer_decay": 1.0 if preset == "scratch" else 0.8}
        length_unset = values["epochs"] is None and values["steps"] is None
        if self.size_of(model) == "tiny":
            # a folder's own config does not say whether it has the plain layers of a ViT
            init = {"init": "mimetic"} if model == "tiny" else {}
            return (
                changes
                | TINY
                | self.tiny
                | init
                | ({"epochs": TINY_EPOCHS} if length_unset else {})
            )
        epochs = SCRATCH_EPOCHS if preset == "scratch" else self.epochs
        return changes | self.changes | ({"epochs": epochs} if length_unset else {})

    def resolve_defaults(self, values: JsonObject, steps: int) -> JsonObject:
        """Resolve warm-ups and mask annealing as shares of the run, and the micro-batch by size.

        values: {setting: value} of all settings resolved so far; steps: of the whole run.
        """
        scratch = values["preset"] == "scratch"
        warmup = max(1, round((SCRATCH_WARMUP if scratch else HEADS_WARMUP) * steps))
        heads_warmup = warmup if values["warmup_steps"] is None else values["warmup_steps"]
        is_trained = not values["from_scratch"] and self.is_trained_eomt(values["model"])
        without_masks = values["preset"] == "short" or (steps < FEW_STEPS and is_trained)
        size = self.size_of(values["model"])
        return {
            "warmup_steps": warmup,
            "backbone_rest": 0 if scratch else heads_warmup,
            "backbone_warmup": heads_warmup if scratch else 2 * heads_warmup,
            "mask_annealing": "off" if without_masks else "auto",
            "micro_batch": MICRO_BATCH_UNKNOWN if size is None else MICRO_BATCH[size],
        }

    def size_of(self, model: str) -> str | None:
        """Return the name in ARCHITECTURES of a model of `--model`, None where it is unknown.

        A local folder has the name of the nearest architecture in width.
        """
        name = self.names.aliases.get(model, model)
        name = self.names.architecture_of.get(name, name)
        if name in self.names.architectures:
            return name
        width = local_config(model).get("hidden_size", 0)
        return next((name for name, most in WIDTHS.items() if 0 < width <= most), None)

    def is_trained_eomt(self, model: str) -> bool:
        """Return True for released EoMT weights, by name, and for a local folder of EoMT.

        False for a plain ViT, which has everything to learn.
        """
        name = self.names.aliases.get(model, model)
        is_released = name in self.names.architecture_of or name in self.names.pretrained
        return is_released or str(local_config(model).get("model_type", "")).startswith("eomt")


# epochs: of ADE20K, and of the large models on COCO
SEMANTIC = EomtRecipe(MODEL_NAMES["segmentation"], epochs=31.0)
INSTANCE = EomtRecipe(MODEL_NAMES["instance_segmentation"], epochs=12.0, changes=SEGMENTS)
PANOPTIC = EomtRecipe(
    MODEL_NAMES["panoptic_segmentation"],
    epochs=12.0,
    changes=SEGMENTS,
    # after short runs few queries are as certain as 0.8
    tiny={"score": 0.5},
)
