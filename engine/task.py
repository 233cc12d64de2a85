"""The task socket: everything the engine asks of a task.

A task is one object. It never touches DDP, autocast, checkpoints or ranks; the engine never looks
into a batch or a prediction.
"""

from typing import ClassVar

import torch

from visionloop.engine.metric import MetricSpec
from visionloop.engine.optim import batch_norms, default_parameter_groups

# What a task may show of a run beyond its scores. Every hook has a default that shows nothing.


class Reporting:
    """The part of the task socket that draws and tells. The engine never looks into a batch or a prediction; it asks here."""

    sample_score: ClassVar[MetricSpec | None] = (
        None  # what `sample_scores` gives; None: no image is better or worse than another
    )
    score_charts: ClassVar[
        dict[str, tuple[str, ...]]
    ] = {}  # {title: patterns of metric keys in one chart}; others get their own
    class_curves: ClassVar[
        tuple[str, ...]
    ] = ()  # columns of `per_class_scores` that are worth a curve over the run

    # images --------------------
    def draw(self, batch):
        """{tag: uint8 array [H, W, 3]} of a training batch, as the network sees it."""
        return {}

    def draw_samples(self, batch, predictions):
        """One uint8 array [H, W, 3] for each image of an evaluation's batch, prediction beside truth; [] for a task that draws none."""
        return []

    def draw_gallery(self, images, captions):
        """uint8 array [H, W, 3] with all images and a caption below each, or None. images: of `draw_samples`, at most 640 px wide."""
        return None

    def draw_scores(self, metric):
        """{tag: uint8 array [H, W, 3]} drawn from a whole evaluation, e.g. a confusion matrix."""
        return {}

    # numbers --------------------
    def sample_scores(self, metric):
        """(sample ids int64 [N], float64 [N]): the `sample_score` of every image evaluated; nan where an image has none."""
        raise NotImplementedError

    def per_class_scores(self, metric):
        """{class name: {column: number}} for tables, e.g. {"cat": {"AP": 0.5, "boxes": 12}}."""
        return {}

    def reference_scores(self, metric):
        """Scores of a trivial predictor on the same images, shown beside ours: {label: number}."""
        return {}

    def confusion(self, metric):
        """(class names, whole numbers [C, C] with the truth in rows, what is counted, e.g. "images"), or None."""
        return None

    def curves(self, metric):
        """[{"title", "x": label, "y": label, "lines": [{"name", "x": [numbers], "y": [numbers]}]}], e.g. precision against recall."""
        return []


class Task(Reporting):
    """Base of all tasks. `name` and `metrics` are class attributes; the first metric picks `best/` unless told otherwise.

    What a task may draw and tell of a run besides stands in reporting.py.
    """

    name: ClassVar[str]
    metrics: ClassVar[tuple[MetricSpec, ...]]
    config_class: ClassVar[type]  # a frozen dataclass, see engine/config/options.py
    count_names: ClassVar[tuple[str, ...]]  # the keys of `count`, known before there is a batch
    saved_predictions_suffix: ClassVar[str | None] = (
        None  # of the file that `save_scored_predictions` writes; None: this task has none
    )
    nondeterministic_ops: ClassVar[
        tuple[str, ...]
    ] = ()  # operations of its training without a deterministic backward on CUDA
    overfit_loss_share: ClassVar[float] = (
        0.8  # of its loss that one batch is below after the 60 steps of `check_task`
    )
    sheet_side: ClassVar[int] = (
        200  # longer side of one of `draw_predictions` on the contact sheet, in pixels
    )
    overfit_goal: ClassVar[tuple[str, float | str] | None] = (
        None  # (metric key, score or label of a reference score), for `overfit_samples`
    )

    def __init__(self, config):
        self.config = config

    @classmethod
    def recipe(cls, values):
        """What the chosen model and preset change in the defaults: {setting: value}, given all values settled so far."""
        return {}

    # data --------------------
    def build_datasets(self):
        """(train, val): datasets of samples, each a dict of tensors; with augmentation in train alone.

        A dataset has `__len__`, `__getitem__(index)`, `name(index) -> str` (a path, for messages)
        and `fingerprint() -> str` (changes when the samples do). It can be pickled. `__getitem__`
        raises OSError for what it cannot read.
        """
        raise NotImplementedError

    def build_eval_dataset(self, split):
        """The images of "train", "val" or "test" as evaluation sees them."""
        raise NotImplementedError

    def collate(self, samples, step, offset):
        """A Batch of the samples. Each sample holds its dataset index under "sample_id" (put there by the engine)."""
        raise NotImplementedError

    def collate_eval(self, samples):
        """A Batch for evaluation; may keep a list where sizes differ."""
        return self.collate(samples, 0, 0)

    # computation --------------------
    def build_model(self):
        """An nn.Module with weights, the head fitted to the data's classes, in train mode, on the CPU, in fp32."""
        raise NotImplementedError

    def to_input(self, batch):
        """uint8 pixel_values -> what the network reads, on the device. First thing in `loss` and `predict`."""
        raise NotImplementedError

    def count(self, micro_batches):
        """What the loss divides by, from host batches: {name: number}."""
        raise NotImplementedError

    def loss(self, model, batch, count):
        """{"loss": total, "loss_<part>": ..}: sums divided by `count`, in fp32. Only "loss" gets a gradient."""
        raise NotImplementedError

    def predict(self, model, batch):
        """Final answers in the image's own coordinates, with what `build_metric` needs."""
        raise NotImplementedError

    def build_metric(self):
        """An empty metric, see engine/metric.py."""
        raise NotImplementedError

    # weights --------------------
    def parameter_groups(self, module):
        """[{"name", "params", "lr_scale", "weight_decay", "warmup", "start"}].

        weight_decay None: the run's, warmup None: the run's; start: the step before which the group
        rests, 0 where it is left out.
        """
        return default_parameter_groups(module)

    def backbone(self, module):
        """The part that `--freeze backbone` holds still, or None where there is none."""
        return None

    def grad_checkpointing_blocks(self, module):
        """The submodules whose activations may be recomputed. Never one that trains a BatchNorm."""
        return []

    def save(self, module, tensors, folder):
        """Write a Hugging Face folder with `tensors` {name in memory: tensor} as weights."""
        raise NotImplementedError

    def load(self, module, folder):
        """Read back what `save` wrote, bit for bit, into `module`."""
        raise NotImplementedError

    def save_best(self, module, tensors, folder, scores):
        """Like `save`, for people: corrected weights where the library needs them, labels, a model card."""
        self.save(module, tensors, folder)

    # trained models, for evaluate, predict, check and export --------------------
    @classmethod
    def load_trained(cls, folder, *, data=None, val_split=0.0):
        """(task, module in eval mode) of a Hugging Face folder. Classes, sizes and transforms are the folder's own: nothing is refitted.

        data: the folder that `build_eval_dataset` reads; labels there are matched by name, a class
        the model lacks is a UserError. A task may take settings besides, by their names in its
        config: those that its launcher offers for `evaluate` (`score_options`) and for `predict`
        (`predict_options`).
        """
        raise NotImplementedError

    def check_data(self):
        """{"errors": [{"path", "why"}], "warnings": [..], "classes": {name: number}} of the data folder, everything at once.

        It may hold "lines" too: [text], what else is worth knowing, printed for people and left out
        of --json.
        """
        raise NotImplementedError

    def expected_first_loss(self):
        """The loss of a model that knows nothing (ln C for C classes), or None where there is no such number."""
        return None

    def read_sample(self, path):
        """One image as `build_eval_dataset` would give it, without targets. Raises OSError when it cannot be read."""
        raise NotImplementedError

    def describe_predictions(self, batch, predictions, names):
        """One json-able dict per image of the batch, with its name under "file"."""
        raise NotImplementedError

    def write_predictions(self, folder, answers):
        """Files beside predictions.jsonl in forms that other tools read.

        answers: all rows of `describe_predictions`, to be walked over as often as need be; nobody
        holds them all.
        """

    @classmethod
    def score_saved_predictions(cls, path, *, data, split):
        """(task, Metric) of answers that exist already, without a model: what `predict` writes. Raises UserError for a bad file."""
        raise NotImplementedError

    def save_scored_predictions(self, metric, dataset, path):
        """What an evaluation on `dataset` answered, in a form that `score_saved_predictions` reads. metric: after the evaluation."""
        raise NotImplementedError

    def draw_predictions(self, paths, answers, predictions):
        """One uint8 array [H, W, 3] per image: the file with what was answered. answers: of `describe_predictions` for predictions."""
        raise NotImplementedError

    def prediction_images(self, paths, predictions):
        """{folder: one image for each file}: answers that are images themselves, written as PNG; {} for none.

        paths: of the files. An image: uint8 array [H, W] or [H, W, 3], or a Pillow image, whose
        `info` keeps "icc_profile" and "exif". Both here and in `draw_predictions` images may come one
        by one from a generator, so that large ones do not fill the memory.
        """
        return {}

    def explain(self, module, batch, kind):
        """One uint8 array [H, W, 3] per image that shows why; kind: a switch of `predict` that the launcher offers."""
        raise NotImplementedError

    def export(self, module, folder, *, onnx=False):
        """Like `save_best`, of a module of `load_trained`, corrected in place; ONNX too when asked for. Returns lines about checks."""
        raise NotImplementedError

    # optional --------------------
    def min_micro_batch_size(self, module):
        """The fewest samples a micro-batch may hold while training: 2 with a trained BatchNorm, or when samples are mixed."""
        return 2 if any(layer.training for layer in batch_norms(module)) else 1

    def before_step(self, module, step, steps):
        """Schedules of the task's own, as a pure function of the step. The host's generators are seeded by (seed, step) here."""

    def before_sample(self, step, steps):
        """Called in the process that makes samples, before each of step `step`: augmentation that changes during the run."""

    def compile(self, module):
        """What `--compile` makes of the module: the callable that training uses."""
        return torch.compile(module)

    @classmethod
    def settle(cls, values, steps):
        """{setting: value} for settings still None once the length of the run is known. values: all settled so far."""
        return {}

    def overfit_samples(self, samples):
        """(samples for `collate`, samples to score) by which these of evaluation are overfitted; UserError if that says nothing."""
        return samples, samples

    def reload_best_at(self, steps):
        """The step before which the best checkpoint so far is loaded whole, or None."""
        return None

    def notes(self):
        """Lines about the data that a run says once at its start, after `build_datasets`."""
        return []

    def without_targets(self, batch):
        """The batch with nothing to find in it, for tasks where that is legal; None otherwise."""
        return None
