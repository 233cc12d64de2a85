"""Semantic segmentation, wired to the engine's socket. What is done stands in the files beside this one."""

from functools import cached_property, partial

import torch
from torch import nn

from visionloop.datasets.io.images import read_image
from visionloop.datasets.segmentation.dataset import SegmentationDataset
from visionloop.datasets.segmentation.mask_values import IGNORED
from visionloop.datasets.segmentation.transforms import (
    SegmentationEvalPreset,
    SegmentationTrainPreset,
)
from visionloop.engine.task import Task
from visionloop.metrics.segmentation import SegmentationMetric
from visionloop.tasks.huggingface.hub import check_folder
from visionloop.tasks.huggingface.loading import class_names
from visionloop.tasks.normalize import Normalise
from visionloop.tasks.segmentation import evaluate, recipes, saved_predictions
from visionloop.tasks.segmentation.architectures import REGISTRY
from visionloop.tasks.segmentation.checks import check_segmentation_data
from visionloop.tasks.segmentation.config import SegmentationConfig
from visionloop.tasks.segmentation.data import (
    collate,
    collate_eval,
    index_split,
    training_splits,
    window_samples,
)
from visionloop.tasks.segmentation.export import (
    export_segmenter,
    load_folder,
    save_folder,
    statistics_of,
    write_segmenter_card,
)
from visionloop.tasks.segmentation.loss import EomtCriterion, losses_of_images
from visionloop.tasks.segmentation.mask_annealing import parse_annealing
from visionloop.tasks.segmentation.model import (
    build_model,
    load_model,
    parameter_groups,
    source_config,
)
from visionloop.tasks.segmentation.visualize import (
    SegmentationReporting,
    class_colors,
    draw_prediction,
)


class SegmentationTask(SegmentationReporting, Task):
    """One class per pixel; EoMT of every size, on a ViT or on DINOv3."""

    name = "segmentation"
    metrics = evaluate.METRICS
    config_class = SegmentationConfig
    count_names = ("masks", "class_weight")
    overfit_goal = (
        "miou",
        0.7,
    )  # what is thin in a street at 96 px has no pixel of its own: 0.79 is all that four of them give
    recipe = staticmethod(recipes.recipe)
    settle = staticmethod(recipes.settle)
    collate = staticmethod(collate)
    collate_eval = staticmethod(collate_eval)
    score_saved_predictions = classmethod(saved_predictions.score_saved_predictions)

    def __init__(self, config, classes=None):
        """classes: names in order of id, where a trained model brings them; None: those of the data's classes.json."""
        super().__init__(config)
        self.given_classes = classes
        self.num_levels = (
            self.model_config.num_blocks if config.score_levels else 0
        )  # besides the last
        self.metrics = evaluate.METRICS + evaluate.level_metrics(self.num_levels)

    @classmethod
    def load_trained(cls, folder, *, data=None, val_split=0.0, **settings):
        module = load_model(check_folder(folder))
        classes = class_names(module.config) or [
            f"LABEL_{i}" for i in range(module.config.num_labels)
        ]
        return cls(
            SegmentationConfig(data=data, model=str(folder), val_split=val_split, **settings),
            classes,
        ), module.eval()

    # data --------------------
    @cached_property
    def splits(self):
        """(training index, validation index)."""
        return training_splits(self.config.data, self.config.val_split, self.given_classes)

    @cached_property
    def classes(self):
        return tuple(self.given_classes or self.splits[0].classes)

    @cached_property
    def colors(self):
        """uint8 [K, 3]: the data's own where it has some, else ours."""
        return class_colors(
            self.classes,
            self.splits[0].colors if self.config.data and not self.given_classes else None,
        )

    @cached_property
    def source(self):
        return REGISTRY.find(self.config.model, self.config.from_scratch)

    @cached_property
    def model_config(self):
        """The library's config of the model as it will be built, but for the classes."""
        config = self.config
        return source_config(
            self.source,
            image_size=config.image_size,
            num_queries=config.num_queries,
            num_blocks=config.num_blocks,
        )

    @property
    def image_size(self):
        return self.model_config.image_size

    @cached_property
    def pixel_statistics(self):
        """(mean, std) of 0..1 per channel, as the model was trained with."""
        return statistics_of(self.source)

    def build_datasets(self):
        config, (train, val) = self.config, self.splits
        scale, flip = (config.scale_min, config.scale_max), 0.5 if config.hflip else 0.0
        transform = SegmentationTrainPreset(
            size=self.image_size, color=config.color, scale=scale, flip=flip
        )
        return SegmentationDataset(
            train, transform, memory=self.config.memory_bytes
        ), self._for_evaluation(val)

    def build_eval_dataset(self, split):
        if self.config.val_split and split != "test":
            return self._for_evaluation(self.splits[split == "val"])
        return self._for_evaluation(index_split(self.config.data, split, self.classes))

    def _for_evaluation(self, index):
        return SegmentationDataset(
            index,
            SegmentationEvalPreset(size=self.image_size),
            with_truth=True,
            memory=self.config.memory_bytes,
        )

    def overfit_samples(self, samples):
        return [
            part for sample in samples for part in window_samples(sample, self.image_size)
        ], samples

    def check_data(self):
        return check_segmentation_data(self.config.data, self.config.val_split, self.image_size)

    # computation --------------------
    def build_model(self):
        self.annealing = parse_annealing(
            self.config.mask_annealing or "auto", self.model_config.num_blocks
        )
        return build_model(self.source, self.classes, self.model_config, self.config.init)

    @cached_property
    def criterion(self):
        config = self.config
        return EomtCriterion(
            len(self.classes), points=config.points, share_candidates=config.share_candidates, mask_ignore=config.mask_ignore,
            no_object_weight=config.no_object_weight, weights=(config.weight_class, config.weight_mask, config.weight_dice),
        )  # fmt: skip

    def before_step(self, module, step, steps):
        module.mask_probs = self.annealing.probabilities(step, steps)

    @cached_property
    def normalise(self):
        return Normalise(*self.pixel_statistics)

    def to_input(self, batch):
        return self.normalise(batch["fitted"] if "fitted" in batch else batch["pixel_values"])

    def count(self, micro_batches):
        images = [len(labels) for batch in micro_batches for labels in batch["labels"]]
        num_queries = self.model_config.num_queries
        pairs = sum(min(num_queries, masks) for masks in images)
        return {
            "masks": pairs,
            "class_weight": pairs
            + self.config.no_object_weight * (len(images) * num_queries - pairs),
        }

    def loss(self, model, batch, count):
        mask_logits, class_logits = model(self.to_input(batch))
        ids = (
            batch["fitted_ids"] if "fitted_ids" in batch else batch["ids"]
        )  # images as evaluation sees them have both
        masks = [
            one == labels[:, None, None] for one, labels in zip(ids, batch["labels"], strict=True)
        ]
        return self.criterion(
            mask_logits, class_logits, masks, batch["labels"], count, valid=ids != IGNORED
        )

    def predict(self, model, batch):
        losses = partial(losses_of_images, self.criterion) if "fitted" in batch else None
        return evaluate.predict(
            model,
            self.normalise,
            batch,
            self.image_size,
            levels=self.config.score_levels,
            losses=losses,
        )

    def build_metric(self):
        return SegmentationMetric(len(self.classes), self.num_levels)

    def without_targets(self, batch):
        empty = {
            "ids": torch.full_like(batch["ids"], IGNORED),
            "labels": [labels[:0] for labels in batch["labels"]],
        }
        return type(batch)(batch | empty, step=batch.step, offset=batch.offset)

    # answers and images --------------------
    def read_sample(self, path):
        return SegmentationEvalPreset(size=self.image_size)(read_image(path))

    def describe_predictions(self, batch, predictions, names):
        return saved_predictions.describe(predictions, names, self.classes)

    def prediction_images(self, paths, predictions):
        return saved_predictions.prediction_files(predictions, self.colors)

    def draw_predictions(self, paths, answers, predictions):
        pairs = zip(map(read_image, paths), predictions["ids"], strict=True)
        return (
            draw_prediction(
                image.permute(1, 2, 0).numpy(), ids.cpu().numpy(), self.classes, self.colors
            )
            for image, ids in pairs
        )

    # weights --------------------
    def parameter_groups(self, module):
        config = self.config
        return parameter_groups(
            module,
            layer_decay=config.layer_decay,
            rest=config.backbone_rest,
            warmup=config.backbone_warmup,
            decay_all=config.decay_all,
        )

    def backbone(self, module):
        return nn.ModuleList([module.embeddings, module.layers[: -module.config.num_blocks]])

    def grad_checkpointing_blocks(self, module):
        return [*module.layers, module.heads]

    def compile(self, module):
        # what changes during the run, the masks, stays outside of the compiled parts
        for block in self.grad_checkpointing_blocks(module):
            block.compile()
        return module

    def save(self, module, tensors, folder):
        save_folder(module, tensors, folder, self.image_size, *self.pixel_statistics)

    def load(self, module, folder):
        load_folder(module, folder)

    def save_best(self, module, tensors, folder, scores):
        self.save(module, tensors, folder)
        write_segmenter_card(
            folder,
            self,
            scores,
            None if self.given_classes else [len(index) for index in self.splits],
        )

    def export(self, module, folder, *, onnx=False):
        self.save(module, module.state_dict(), folder)
        write_segmenter_card(folder, self, {}, None)
        return export_segmenter(module, folder, self.image_size) if onnx else []
