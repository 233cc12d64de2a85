"""Image classification, wired to the engine's socket. What is done stands in the files beside this one."""

import math
from functools import cached_property

import torch

from visionloop.datasets.classification.image_folder import ImageFolderDataset
from visionloop.datasets.classification.transforms import ClassificationTrainPreset
from visionloop.datasets.io.images import read_image
from visionloop.engine.task import Task
from visionloop.metrics.classification import ClassificationMetric
from visionloop.tasks.classification import evaluate, recipes, saved_predictions
from visionloop.tasks.classification.architectures import REGISTRY
from visionloop.tasks.classification.attention_rollout import draw_attention
from visionloop.tasks.classification.checks import check_folder_of_data
from visionloop.tasks.classification.config import ClassificationConfig
from visionloop.tasks.classification.data import collate, index_split, training_splits
from visionloop.tasks.classification.export import (
    export_classifier,
    load_folder,
    save_folder,
    write_classifier_card,
)
from visionloop.tasks.classification.loss import (
    Mixing,
    balanced_class_weights,
    classification_loss,
    mixes_at,
)
from visionloop.tasks.classification.model import (
    build_model,
    load_model,
    own_image_size,
    parameter_groups,
    recomputed_blocks,
)
from visionloop.tasks.classification.positions import set_image_size
from visionloop.tasks.classification.processor import start_transform
from visionloop.tasks.classification.visualize import ClassificationReporting, draw_prediction
from visionloop.tasks.huggingface.hub import check_folder
from visionloop.tasks.huggingface.loading import class_names
from visionloop.tasks.image_cache import training_images


class ClassificationTask(ClassificationReporting, Task):
    """One label per image; any image classifier of the library."""

    name = "classification"
    metrics = evaluate.METRICS
    config_class = ClassificationConfig
    count_names = ("samples",)
    overfit_goal = ("accuracy", 0.99)
    saved_predictions_suffix = ".jsonl"
    recipe = staticmethod(recipes.recipe)
    score_saved_predictions = classmethod(saved_predictions.score_saved_predictions)

    def __init__(self, config, classes=None):
        """classes: names in order of id, where a trained model brings them; None: those of the training folder."""
        super().__init__(config)
        self.given_classes, self.mixing_now = classes, True
        self.constants = {}  # {device: (scale, shift, class weights)}, sent there once

    @classmethod
    def load_trained(cls, folder, *, data=None, val_split=0.0):
        module = load_model(check_folder(folder))
        classes = class_names(module.config) or [
            f"LABEL_{i}" for i in range(module.config.num_labels)
        ]
        task = cls(ClassificationConfig(data=data, model=str(folder), val_split=val_split), classes)
        set_image_size(module, task.eval_transform.size)
        return task, module.eval()

    # data --------------------
    @cached_property
    def splits(self):
        """(training index, validation index)."""
        return training_splits(self.config.data, self.config.val_split, self.given_classes)

    @cached_property
    def classes(self):
        return tuple(self.given_classes or self.splits[0].classes)

    @cached_property
    def source(self):
        return REGISTRY.find(self.config.model, self.config.from_scratch)

    @cached_property
    def eval_transform(self):
        own_size = own_image_size(self.source)
        config = self.config
        return start_transform(
            self.source.folder,
            own_size,
            size=config.image_size,
            style=config.eval_resize,
            crop_pct=config.crop_pct,
        )

    @cached_property
    def train_transform(self):
        return ClassificationTrainPreset(
            size=self.eval_transform.size,
            crop_scale_min=self.config.crop_scale_min,
            interpolation=self.eval_transform.interpolation,
            flip=0.5 if self.config.hflip else 0.0,
            randaugment_ops=self.config.rand_augment_ops,
            randaugment_magnitude=self.config.rand_augment_magnitude,
            erase=self.config.random_erasing,
        )

    def build_datasets(self):
        train, val = self.splits
        images = training_images(train, self.config, self.train_transform.least_side)
        return ImageFolderDataset(train, self.train_transform, images), ImageFolderDataset(
            val, self.eval_transform
        )

    def build_eval_dataset(self, split):
        if self.config.val_split and split != "test":
            return ImageFolderDataset(self.splits[split == "val"], self.eval_transform)
        return ImageFolderDataset(
            index_split(self.config.data, split, self.classes), self.eval_transform
        )

    def collate(self, samples, step, offset):
        return collate(samples, step, offset)

    def check_data(self):
        return check_folder_of_data(self.config.data, self.config.val_split)

    # computation --------------------
    def build_model(self):
        config = self.config
        return build_model(
            self.source,
            self.classes,
            image_size=self.eval_transform.size,
            drop_path=config.drop_path,
            zero_head=config.zero_head,
            init=config.init,
        )

    @cached_property
    def mixing(self):
        config = self.config
        return Mixing(
            mixup=config.mixup,
            cutmix=config.cutmix,
            prob=config.mixup_prob,
            switch=config.mixup_switch,
            num_classes=len(self.classes),
        )

    def constants_on(self, device):
        """(scale, shift, class weights or None) on the device: pixels * scale + shift is scaled to 0..1 and normalised."""
        if device not in self.constants:
            mean, std = (
                torch.tensor(numbers).view(1, 3, 1, 1)
                for numbers in (self.eval_transform.mean, self.eval_transform.std)
            )
            balanced = self.config.class_weights == "balanced"
            weights = (
                balanced_class_weights(self.splits[0].labels, len(self.classes)).to(device)
                if balanced
                else None
            )
            self.constants[device] = (1 / (255 * std)).to(device), (-mean / std).to(device), weights
        return self.constants[device]

    def to_input(self, batch):
        scale, shift, _ = self.constants_on(batch["pixel_values"].device)
        return batch["pixel_values"].float() * scale + shift

    def count(self, micro_batches):
        return {"samples": sum(len(batch) for batch in micro_batches)}

    def before_step(self, module, step, steps):
        self.mixing_now = mixes_at(step, steps, self.config.mixup_off)

    def min_micro_batch_size(self, module):
        return 2 if self.mixing.on else super().min_micro_batch_size(module)

    def loss(self, model, batch, count):
        pixels, targets = self.to_input(batch), batch["labels"]
        if self.mixing_now:
            pixels, targets = self.mixing(pixels, targets)
        logits = model(pixel_values=pixels).logits
        weights = self.constants_on(pixels.device)[-1]
        return classification_loss(
            logits,
            targets,
            count,
            label_smoothing=self.config.label_smoothing,
            class_weights=weights,
        )

    def expected_first_loss(self):
        return math.log(len(self.classes))

    def predict(self, model, batch):
        return evaluate.predict(model, self.to_input(batch))

    def build_metric(self):
        return ClassificationMetric(len(self.classes))

    def save_scored_predictions(self, metric, dataset, path):
        saved_predictions.save_scored_predictions(metric, dataset, path, self.classes)

    # answers and images --------------------
    def read_sample(self, path):
        return {"pixel_values": self.eval_transform(read_image(path))}

    def describe_predictions(self, batch, predictions, names):
        return evaluate.describe(predictions, names, self.classes)

    def draw_predictions(self, paths, answers, predictions):
        return (
            draw_prediction(read_image(path), answer)
            for path, answer in zip(paths, answers, strict=True)
        )

    def explain(self, module, batch, kind):
        return draw_attention(module, self.to_input(batch), batch["pixel_values"])

    # weights --------------------
    def parameter_groups(self, module):
        return parameter_groups(module, self.config.layer_decay)

    def backbone(self, module):
        return module.base_model

    def grad_checkpointing_blocks(self, module):
        return recomputed_blocks(module)

    def save(self, module, tensors, folder):
        save_folder(module, tensors, folder, self.eval_transform)

    def load(self, module, folder):
        load_folder(module, folder)

    def save_best(self, module, tensors, folder, scores):
        self.save(module, tensors, folder)
        trained_on = None if self.given_classes else [len(index) for index in self.splits]
        write_classifier_card(folder, self, scores, trained_on)

    def export(self, module, folder, *, onnx=False):
        self.save(module, module.state_dict(), folder)
        write_classifier_card(folder, self, {}, None)
        return export_classifier(module, folder, self.eval_transform.size) if onnx else []
