"""Super-resolution and restoration, wired to the engine's socket. What is done stands in the files beside this one."""

import logging
from functools import cached_property

from visionloop.datasets.io.images import read_image
from visionloop.datasets.super_resolution.dataset import SuperResolutionDataset
from visionloop.datasets.super_resolution.transforms import (
    SuperResolutionEvalPreset,
    SuperResolutionTrainPreset,
)
from visionloop.engine.errors import UserError
from visionloop.engine.task import Task
from visionloop.metrics.lpips import Lpips
from visionloop.metrics.super_resolution import SuperResolutionMetric
from visionloop.tasks.huggingface.hub import check_folder
from visionloop.tasks.super_resolution import evaluate, recipes, result_images, saved_predictions
from visionloop.tasks.super_resolution.architectures import REGISTRY, start_of
from visionloop.tasks.super_resolution.checks import check_super_resolution_data, small_images
from visionloop.tasks.super_resolution.config import RESTORATION, SuperResolutionConfig
from visionloop.tasks.super_resolution.data import (
    collate,
    collate_eval,
    cut_overfit_sample,
    index_split,
    open_images,
    require_pairs,
    training_splits,
)
from visionloop.tasks.super_resolution.export import (
    export_super_resolver,
    load_folder,
    make_plain,
    save_folder,
    save_plain_folder,
    write_super_resolver_card,
)
from visionloop.tasks.super_resolution.loss import SuperResolutionCriterion
from visionloop.tasks.super_resolution.model import build_model, load_model, source_config
from visionloop.tasks.super_resolution.modes import (
    border_of,
    build_degradation,
    note_mode,
    noted_degradation,
)
from visionloop.tasks.super_resolution.network import recomputed_blocks
from visionloop.tasks.super_resolution.visualize import (
    STRIP,
    SuperResolutionReporting,
    draw_prediction,
)

log = logging.getLogger(__name__)


class SuperResolutionTask(SuperResolutionReporting, Task):
    """Larger and cleaner images; Swin2SR in all its modes."""

    name = "super_resolution"
    metrics = evaluate.METRICS
    config_class = SuperResolutionConfig
    count_names = ("pixels",)
    sheet_side = STRIP
    overfit_goal = ("psnr", "bicubic PSNR")
    recipe = staticmethod(recipes.recipe)
    settle = staticmethod(recipes.settle)
    collate = staticmethod(collate)
    collate_eval = staticmethod(collate_eval)
    score_saved_predictions = classmethod(saved_predictions.score_saved_predictions)

    def __init__(self, config):
        super().__init__(config)
        if config.ensemble not in (1, 8):
            raise UserError(f"--ensemble: expected 1 or 8, got {config.ensemble}", field="ensemble")

    @classmethod
    def load_trained(cls, folder, *, data=None, val_split=0.0, **settings):
        module = load_model(check_folder(folder))
        mode = settings.pop("mode", None) or recipes.mode_of(str(folder))
        if module.scale > 1 and mode in RESTORATION:
            raise UserError(
                f"--mode {mode}: keeps the size, {folder} is for x{module.scale}", field="mode"
            )
        settings = noted_degradation(module.config) | settings
        config = SuperResolutionConfig(
            data=data,
            model=str(folder),
            val_split=val_split,
            mode=mode,
            scale=module.scale,
            **settings,
        )
        return cls(config), module.eval()

    # data --------------------
    @cached_property
    def splits(self):
        """(training index, validation index)."""
        # the network's own scale: one without a head is told before any image is decoded
        return training_splits(self.config.data, self.config.val_split, self.model_config.upscale)

    @cached_property
    def source(self):
        config = self.config
        return REGISTRY.find(
            config.model if config.from_scratch else start_of(config.model, config.scale),
            config.from_scratch,
        )

    @cached_property
    def model_config(self):
        """The library's config of the network as it will be built."""
        return source_config(
            self.source, scale=self.config.scale, image_size=self.config.patch_size
        )

    @property
    def scale(self):
        return self.config.scale or self.model_config.upscale

    @property
    def patch(self):
        """Side of the training crops in pixels of the input."""
        return self.config.patch_size or self.model_config.image_size

    @property
    def border(self):
        """Pixels that scores leave out at each side."""
        return border_of(self.config.mode, self.scale)

    @cached_property
    def degradation(self):
        return build_degradation(self.config)

    @cached_property
    def train_transform(self):
        return SuperResolutionTrainPreset(
            patch=self.patch,
            scale=self.scale,
            degradation=self.degradation,
            augment=self.config.flips,
        )

    def build_datasets(self):
        if self.config.lpips_weights:
            self.build_metric()  # a wrong file is told now, not at the first evaluation
        train, val = self.splits
        pairs = open_images(train, self.config.cache, self.train_transform.side)
        return SuperResolutionDataset(pairs, self.train_transform), self._for_evaluation(val)

    def notes(self):
        return small_images(self.splits[0])

    def build_eval_dataset(self, split):
        if self.config.val_split and split != "test":
            return self._for_evaluation(self.splits[split == "val"])
        return self._for_evaluation(index_split(self.config.data, split, self.scale))

    def _for_evaluation(self, index):
        transform = SuperResolutionEvalPreset(scale=self.scale, degradation=self.degradation)
        return SuperResolutionDataset(open_images(index, self.config.cache), transform)

    def overfit_samples(self, samples):
        require_pairs(samples, self.border)
        parts = [cut_overfit_sample(sample, self.patch, self.scale) for sample in samples]
        return parts, parts

    def check_data(self):
        return check_super_resolution_data(
            self.config.data, self.config.val_split, self.scale, self.train_transform.side
        )

    # computation --------------------
    def build_model(self):
        module = build_model(
            self.source,
            self.model_config,
            official_heads=self.config.official_heads,
            init=self.config.init,
        )
        note_mode(module.config, self.config)
        return module

    @cached_property
    def criterion(self):
        config, weights = self.config, {}
        if config.mode == "compressed":
            weights = {"aux_weight": config.weight_aux, "frequency_weight": config.weight_frequency}
        return SuperResolutionCriterion(config.loss, scale=self.scale, **weights)

    def to_input(self, batch):
        return batch["pixel_values"].float() / 255

    def count(self, micro_batches):
        return {
            "pixels": sum(
                len(batch) * batch["hr"].shape[-2] * batch["hr"].shape[-1]
                for batch in micro_batches
            )
        }

    def loss(self, model, batch, count):
        return self.criterion(model(self.to_input(batch)), batch["hr"].float() / 255, count)

    def predict(self, model, batch):
        config = self.config
        return evaluate.predict(
            model,
            batch,
            criterion=self.criterion,
            tile=config.tile,
            halo=config.halo,
            ensemble=config.ensemble,
        )

    @cached_property
    def lpips(self):
        if self.config.lpips_weights is None:
            log.warning(
                "LPIPS is not scored: --lpips-weights names no file (bin/convert.py lpips makes it)"
            )
            return None
        try:
            return Lpips.load(self.config.lpips_weights)
        except ValueError as error:
            raise UserError(
                f"--lpips-weights: {error}", field="lpips_weights", file=self.config.lpips_weights
            ) from None

    def build_metric(self):
        return SuperResolutionMetric(self.border, self.lpips)

    # answers and images --------------------
    def read_sample(self, path):
        return SuperResolutionEvalPreset(scale=self.scale)(
            read_image(path).permute(1, 2, 0).numpy()
        )

    def describe_predictions(self, batch, predictions, names):
        return result_images.describe(predictions, batch, names)

    def prediction_images(self, paths, predictions):
        return result_images.prediction_files(paths, predictions, self.scale)

    def draw_predictions(self, paths, answers, predictions):
        return (
            draw_prediction(read_image(path), image)
            for path, image in zip(paths, predictions["images"], strict=True)
        )

    # weights --------------------
    def backbone(self, module):
        return module.swin2sr

    def grad_checkpointing_blocks(self, module):
        return recomputed_blocks(module)

    def save(self, module, tensors, folder):
        save_folder(module, tensors, folder)

    def load(self, module, folder):
        load_folder(module, folder)

    def save_best(self, module, tensors, folder, scores):
        save_plain_folder(module, tensors, folder)
        write_super_resolver_card(folder, self, scores, [len(index) for index in self.splits])

    def export(self, module, folder, *, onnx=False):
        lines = make_plain(module)
        save_plain_folder(module, module.state_dict(), folder)
        write_super_resolver_card(folder, self, {}, None)
        return lines + (export_super_resolver(module, folder, self.patch) if onnx else [])
