"""Object detection, wired to the engine's socket. What is done stands in the files beside this one."""

from functools import cached_property

import torch

from visionloop.datasets.detection.dataset import DetectionDataset
from visionloop.datasets.detection.transforms import DetectionEvalPreset, DetectionTrainPreset
from visionloop.datasets.io.images import read_image
from visionloop.engine.distributed import sum_over_joined
from visionloop.engine.task import Task
from visionloop.metrics.detection import DetectionMetric
from visionloop.tasks.detection import evaluate, recipes, saved_predictions
from visionloop.tasks.detection.architectures import ARCHITECTURES, REGISTRY
from visionloop.tasks.detection.checks import check_detection_data
from visionloop.tasks.detection.config import DetectionConfig
from visionloop.tasks.detection.data import (
    cap_targets,
    collate,
    draw_size,
    index_split,
    resize_batch,
    sizes_around,
    training_splits,
)
from visionloop.tasks.detection.export import (
    export_detector,
    load_folder,
    read_size,
    save_folder,
    write_detector_card,
)
from visionloop.tasks.detection.loss import DFineCriterion
from visionloop.tasks.detection.model import (
    build_model,
    check_image_size,
    learns_statistics,
    load_model,
    parameter_groups,
    recomputed_blocks,
)
from visionloop.tasks.detection.visualize import DetectionReporting, draw_prediction
from visionloop.tasks.huggingface.hub import check_folder
from visionloop.tasks.huggingface.loading import class_names
from visionloop.tasks.image_cache import training_images


class DetectionTask(DetectionReporting, Task):
    """Boxes and their classes; D-FINE of every size."""

    name = "detection"
    metrics = evaluate.METRICS
    config_class = DetectionConfig
    count_names = ("boxes",)
    overfit_goal = ("mAP50", 0.9)
    nondeterministic_ops = ("grid_sample",)  # of the decoder's deformable attention
    overfit_loss_share = (
        0.95  # the distributions' entropy and the class loss, which grows with the overlap, stay
    )
    saved_predictions_suffix = ".json"
    recipe = staticmethod(recipes.recipe)
    settle = staticmethod(recipes.settle)
    score_saved_predictions = classmethod(saved_predictions.score_saved_predictions)
    save_scored_predictions = staticmethod(saved_predictions.save_scored_predictions)
    write_predictions = staticmethod(saved_predictions.write_predictions)

    def __init__(self, config, classes=None):
        """classes: names in order of label, where a trained model brings them; None: those of the training split."""
        super().__init__(config)
        evaluate.check_backend(config.metric_backend)
        self.given_classes = classes
        self.size_now = None  # side of the images of this step, None: as they come

    @classmethod
    def load_trained(cls, folder, *, data=None, val_split=0.0):
        module = load_model(check_folder(folder))
        classes = class_names(module.config) or [
            f"LABEL_{i}" for i in range(module.config.num_labels)
        ]
        return cls(
            DetectionConfig(data=data, model=str(folder), val_split=val_split), classes
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
    def source(self):
        return REGISTRY.find(self.config.model, self.config.from_scratch)

    @cached_property
    def image_size(self):
        if self.config.image_size:
            return self.config.image_size
        return (
            read_size(self.source.folder)
            if self.source.folder
            else ARCHITECTURES[self.source.name][2]
        )

    @cached_property
    def train_transform(self):
        config = self.config
        return DetectionTrainPreset(
            size=self.image_size, photometric=config.photometric, zoom_out=config.zoom_out, iou_crop=config.iou_crop,
            flip=0.5 if config.hflip else 0.0,
        )  # fmt: skip

    def build_datasets(self):
        train, val = self.splits
        images = training_images(train, self.config, self.train_transform.least_side)
        return DetectionDataset(train, self.train_transform, images=images), self._for_evaluation(
            val
        )

    def build_eval_dataset(self, split):
        if self.config.val_split and split != "test":
            return self._for_evaluation(self.splits[split == "val"])
        return self._for_evaluation(index_split(self.config.data, split, self.classes))

    def _for_evaluation(self, index):
        return DetectionDataset(index, DetectionEvalPreset(size=self.image_size), with_truth=True)

    def before_sample(self, step, steps):
        self.train_transform.strong = not self._calm(step, steps)

    def collate(self, samples, step, offset):
        return collate(samples, step, offset)

    def check_data(self):
        return check_detection_data(self.config.data, self.config.val_split, self.image_size)

    # computation --------------------
    def build_model(self):
        config = self.config
        module = build_model(
            self.source,
            self.classes,
            backbone_bn=config.backbone_bn,
            class_prior=config.class_prior,
        )
        check_image_size(module.config, self.image_size)
        decoder = module.model.decoder
        self.criterion = DFineCriterion(
            len(self.classes),
            reg_max=module.config.max_num_bins,
            reg_scale=decoder.reg_scale.item(),
            up=decoder.up.item(),
            **self.weights,
        )
        return module

    @cached_property
    def weights(self):
        """{"vfl", "bbox", "giou", "fgl", "ddf"}: weights of the loss terms."""
        return {
            name: getattr(self.config, f"weight_{name}")
            for name in ("vfl", "bbox", "giou", "fgl", "ddf")
        }

    @cached_property
    def sizes(self):
        return sizes_around(self.image_size, self.config.multi_scale)

    def _calm(self, step, steps):
        """True in the last part of the run: weak augmentation and one size."""
        return step >= round(self.config.strong_share * steps)

    def before_step(self, module, step, steps):
        self.size_now = None if self._calm(step, steps) else draw_size(self.sizes)

    def reload_best_at(self, steps):
        return round(self.config.strong_share * steps) if 0 < self.config.strong_share < 1 else None

    def to_input(self, batch):
        # channels last: on the CPU a whole step of `tiny` took 345 ms instead of 398; laid out anew
        # while they are bytes: 4.0 ms for 5.6
        return batch["pixel_values"].contiguous(memory_format=torch.channels_last).float().div_(255)

    def count(self, micro_batches):
        return {
            "boxes": sum(
                len(target["class_labels"])
                for batch in micro_batches
                for target in batch["targets"]
            )
        }

    def loss(self, model, batch, count):
        pixels = self.to_input(batch)
        denoised = cap_targets(batch["targets"], self.config.denoising)
        outputs = model(resize_batch(pixels, self.size_now or pixels.shape[-1]), labels=denoised)
        return self.criterion(
            outputs,
            batch["targets"],
            count,
            denoising_targets=denoised,
            sum_over_ranks=sum_over_joined,
        )

    def predict(self, model, batch):
        weights = {name: self.weights[name] for name in ("vfl", "bbox", "giou")}
        return evaluate.predict(
            model, self.to_input(batch), batch["sizes"], batch.get("targets"), weights
        )

    def build_metric(self):
        return DetectionMetric(len(self.classes), self.config.metric_backend)

    def without_targets(self, batch):
        empty = [
            {name: values[:0] for name, values in target.items()} for target in batch["targets"]
        ]
        return type(batch)(batch | {"targets": empty}, step=batch.step, offset=batch.offset)

    # answers and images --------------------
    def read_sample(self, path):
        image = read_image(path)
        pixels, _, _ = DetectionEvalPreset(size=self.image_size)(image, torch.zeros(0, 4))
        return {"pixel_values": pixels, "size": torch.tensor(image.shape[-2:])}

    def describe_predictions(self, batch, predictions, names):
        return evaluate.describe(
            predictions, batch["sizes"], names, self.classes, evaluate.LEAST_SCORE
        )

    def draw_predictions(self, paths, answers, predictions):
        return (
            draw_prediction(read_image(path), answer)
            for path, answer in zip(paths, answers, strict=True)
        )

    # weights --------------------
    def parameter_groups(self, module):
        return parameter_groups(
            module, self.config.backbone_lr_scale, decay_biases=not learns_statistics(module.config)
        )

    def backbone(self, module):
        return module.model.backbone

    def grad_checkpointing_blocks(self, module):
        return recomputed_blocks(module)

    def compile(self, module):
        # the rest breaks into dozens of graphs, which differ with the number of boxes
        module.model.backbone.model.compile()
        return module

    def save(self, module, tensors, folder):
        save_folder(module, tensors, folder, self.image_size)

    def load(self, module, folder):
        load_folder(module, folder)

    def save_best(self, module, tensors, folder, scores):
        self.save(module, tensors, folder)
        write_detector_card(
            folder,
            self,
            scores,
            None if self.given_classes else [len(index) for index in self.splits],
        )

    def export(self, module, folder, *, onnx=False):
        self.save(module, module.state_dict(), folder)
        write_detector_card(folder, self, {}, None)
        return export_detector(module, folder, self.image_size) if onnx else []
