"""Settings that every training run has. No torch here: `--help` must be quick.

A default of None is resolved before training (engine/config/resolve.py), so the annotation of such
a field is the type of the resolved value, with None only where nothing is a valid value too.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from visionloop.engine.config.options import AUTO, Amount, Duration, Interval, Seconds, option

Shard = Literal["none", "full", "node", "auto"]


@dataclass(frozen=True)
class TaskConfig:
    """Settings that every task has and interprets in its own way."""

    data: str | None = option(
        None,
        "Data folder; its layout is described in the README of the task",
        group="Data",
        fixed=False,
        is_path=True,
    )
    model: str | None = option(
        None,
        "Model to start from: an alias, a Hugging Face hub id or a local model folder",
        group="Model",
        is_path=True,
    )
    from_scratch: bool = option(
        False, "Start from random weights: --model names the architecture alone", group="Model"
    )
    preset: str | None = option(
        None, "Recipe of this task that the defaults of other settings come from", group="Model"
    )
    image_size: int | None = option(
        None,
        "Side of the training images in pixels (default: that of the model)",
        group="Data",
        at_least=8,
    )
    val_split: float = option(
        0.0,
        "Share of the training images that validate, where the data has no val/ folder",
        group="Data",
        at_least=0,
        at_most=0.9,
    )
    freeze: Literal["backbone"] | None = option(
        None, "Part of the model that is not trained; backbone: train the head alone", group="Model"
    )
    augment: str | None = option(
        None,
        "Function of yours, FILE.py:NAME, that augments each decoded training sample, before the "
        "augmentation of the task; the README of the task has an example",
        group="Augmentation",
        fixed=False,  # its text is compared, see engine/data/augmentation.py
    )
    augment_only: bool = option(
        False,
        "Turn off the random augmentation of the task: --augment replaces it. An augmentation that "
        "is given stays on",
        group="Augmentation",
        fixed=False,
    )
    layer_decay: float = option(
        1.0,
        "Factor on the learning rate from each layer to the one below it",
        group="Optimization",
        at_least=0.01,
        at_most=1,
    )


@dataclass(frozen=True)
class TrainConfig:
    """Settings that the engine needs to train any task."""

    output: str | None = option(
        None,
        "Folder of the run (default: runs/TASK-DATA-MODEL); a run that is there already is resumed",
        group="Output",
        fixed=False,
        is_path=True,
    )
    run_name: str | None = option(
        None, "Name of the run: short for --output runs/NAME", group="Output", fixed=False
    )
    steps: int = option(
        None, "Length of the run in optimizer steps", group="Optimization", at_least=1
    )
    epochs: float | None = option(
        None,
        "Length of the run in passes over the training images, instead of --steps",
        group="Optimization",
        at_least=0,
        fixed=False,
    )
    budget: Annotated[Seconds | None, Duration] = option(
        None,
        "Length of the run as a time, as in 2h or 1h30m, instead of --steps or --epochs: the "
        "number of steps that fit is measured once",
        group="Optimization",
        at_least=1,
        fixed=False,
    )
    batch_size: int = option(
        32, "Samples of one optimizer step over all processes", group="Optimization", at_least=1
    )
    micro_batch: Annotated[int, Amount] = option(
        None,
        "Largest number of samples that a process holds on its device at once; auto: what fits "
        "into its memory (default: by the model)",
        group="Precision and memory",
        at_least=1,
        fixed=False,
    )
    shard: Shard = option(
        "none",
        "Divide weights, gradients, moments and EMA with FSDP2: over all processes (full), or over "
        "those of a node with a copy on each node (node); none: all of it on every process; auto: "
        "the least of these that leaves half of the memory for activations",
        group="Precision and memory",
        fixed=False,
    )
    shard_dtype: Literal["fp32", "bf16"] = option(
        "fp32",
        "Precision in which sharded weights are gathered for forward and backward; bf16 halves "
        "traffic and memory of the gathered ones. Gradients are reduced in fp32",
        group="Precision and memory",
    )
    shard_prefetch: int = option(
        0,
        "Blocks that are gathered ahead of the one that computes; 0: as FSDP2 chooses",
        group="Precision and memory",
        at_least=0,
        fixed=False,
    )
    eval_batch_size: int = option(
        32,
        "Images that are evaluated at once; the same images in other batches may score differently",
        group="Evaluation",
        at_least=1,
    )
    lr: float = option(
        1e-3, "Learning rate at the end of warm-up", group="Optimization", at_least=0
    )
    weight_decay: float = option(
        0.05,
        "Weight decay of matrices; norms, biases and embeddings have none",
        group="Optimization",
        at_least=0,
    )
    optimizer: Literal["adamw", "adam", "sgd"] = option(
        "adamw", "Optimizer, in its fused implementation", group="Optimization"
    )
    momentum: float = option(0.9, "Momentum of SGD", group="Optimization", at_least=0, at_most=1)
    beta1: float = option(
        0.9,
        "Decay of the mean of the gradients in Adam and AdamW",
        group="Optimization",
        at_least=0,
        at_most=1,
    )
    beta2: float = option(
        0.999,
        "Decay of the mean of the squared gradients in Adam and AdamW",
        group="Optimization",
        at_least=0,
        at_most=1,
    )
    schedule: Literal["cosine", "poly", "constant", "step"] = option(
        "cosine", "Learning-rate schedule after warm-up", group="Optimization"
    )
    schedule_power: float = option(
        0.9, "Exponent of the poly schedule", group="Optimization", at_least=0
    )
    schedule_milestones: str = option(
        "0.5,0.8,0.9",
        "Points at which the step schedule halves the learning rate, as shares of the run",
        group="Optimization",
    )
    lr_min: float = option(
        1e-6, "Learning rate at the end of the cosine schedule", group="Optimization", at_least=0
    )
    warmup_steps: int = option(
        None,
        "Steps of linear warm-up of the learning rate (default: by the task, else 5 % of the run)",
        group="Optimization",
        at_least=0,
    )
    clip_grad: float = option(
        1.0,
        "Largest norm of the gradient, larger ones are scaled down; inf: no clipping",
        group="Optimization",
        at_least=0,
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = option(
        AUTO,
        "Autocast dtype of the forward pass; weights are fp32 always; auto: the dtype that this "
        "machine computes fast in, kept when the run is resumed",
        group="Precision and memory",
    )
    tf32: bool = option(
        True, "Compute fp32 matrix products in TF32 on CUDA", group="Precision and memory"
    )
    grad_checkpointing: bool = option(
        False,
        "Recompute activations in the backward pass: less memory, more time",
        group="Precision and memory",
        fixed=False,
    )
    compile: bool = option(
        False, "Compile the model with torch.compile", group="Precision and memory", fixed=False
    )
    sync_bn: bool = option(
        False, "Compute BatchNorm statistics over all processes (CUDA only)", group="Optimization"
    )
    ema: bool = option(
        True,
        "Keep an EMA of the weights, which is evaluated and saved as best/",
        group="Optimization",
    )
    ema_decay: float = option(
        0.9998,
        "Decay of the EMA per step; lowered in short runs so that it spans a tenth of them at most",
        group="Optimization",
        at_least=0,
        at_most=1,
    )
    patience: int = option(
        0,
        "Early stopping after this number of evaluations without a better score; 0: never",
        group="Evaluation",
        at_least=0,
    )
    best_metric: str | None = option(
        None,
        "Metric that decides which weights are best/ (default: the first of the task)",
        group="Evaluation",
    )
    max_nonfinite_steps: int = option(
        50,
        "Consecutive steps with a non-finite gradient, which are skipped, before the run fails",
        group="Optimization",
        at_least=1,
        fixed=False,
    )
    skip_unreadable: bool = option(
        False,
        "Replace an unreadable sample with the next readable one instead of ending the run",
        group="Data",
    )
    seed: int = option(
        0,
        "Seed of new weights, order of samples, augmentation and noise",
        group="Optimization",
        at_least=0,
    )
    deterministic: bool = option(
        False, "Use deterministic algorithms on CUDA", group="Precision and memory", fixed=False
    )
    workers: int = option(
        None,
        "Data workers per training process (default: by the number of cores)",
        group="Machine",
        at_least=0,
        fixed=False,
    )
    threads: int = option(
        None,
        "CPU threads per training process (default: by the number of cores); another number may "
        "round sums differently",
        group="Machine",
        at_least=1,
        fixed=False,
    )
    device: Literal["cuda", "mps", "cpu"] = option(
        None,
        "Device to train on (default: the first of these there is)",
        group="Machine",
        fixed=False,
    )
    log_every: int = option(
        50, "Steps between two log lines", group="Output", at_least=1, fixed=False
    )
    eval_every: int = option(
        None,
        "Steps between two evaluations; 0: at the end only (default: an epoch, or a twentieth of "
        "the run if that is longer)",
        group="Evaluation",
        at_least=0,
        fixed=False,
    )
    save_every: Annotated[int | Seconds, Interval] = option(
        None,
        "Steps between two checkpoints, or seconds as in 600s; 0: at the end only (default: a "
        "tenth of the run, 1000 steps at most)",
        group="Checkpoints",
        at_least=0,
        fixed=False,
    )
    save_async: bool = option(
        True,
        "Write checkpoints in a thread: training waits only for a copy in memory",
        group="Checkpoints",
        fixed=False,
    )
    keep: int = option(
        2,
        "Number of newest checkpoints that are not deleted; the best is never",
        group="Checkpoints",
        at_least=1,
        fixed=False,
    )
    keep_every: int = option(
        0,
        "Also write a checkpoint at each multiple of this number of steps, and never delete it; "
        "0: none",
        group="Checkpoints",
        at_least=0,
        fixed=False,
    )
    branch: str | None = option(
        None,
        "Begin a new run with the checkpoint RUN@STEP, RUN@best or RUN (the newest) and the "
        "settings of RUN: what else is given changes. Default folder: RUN-branch-STEP",
        group="Checkpoints",
        fixed=False,
        is_path=True,
    )
    extend: float | None = option(
        None,
        "Lengthen a finished run by this number of steps, or of epochs if it was given those: a "
        "branch in the folder RUN-extend-N",
        group="Checkpoints",
        at_least=0,
        fixed=False,
    )
    resume: str | None = option(
        None,
        "Checkpoint folder to resume from if --output has no checkpoint of its own",
        group="Checkpoints",
        fixed=False,
        is_path=True,
    )
    overfit: int = option(
        0,
        "Number of training images to both train and evaluate on, to test whether the model can "
        "overfit; 0: off",
        group="Data",
        at_least=0,
    )
    process_timeout: float = option(
        1800,
        "Seconds without an answer after which another process counts as lost",
        group="Machine",
        at_least=1,
        fixed=False,
    )
    profile: str | None = option(
        None,
        "Steps START:COUNT of which a profiler trace is written",
        group="Output",
        fixed=False,
    )
