"""What every task's `train` can be told. No torch here: `--help` must be quick."""

from dataclasses import dataclass
from typing import Literal

from visionloop.engine.config.options import Amount, Duration, Interval, option


@dataclass(frozen=True)
class TaskConfig:
    """Settings that every task has and understands in its own way."""

    data: str | None = option(None, "data folder; the layout is in the task's page", fixed=False)
    model: str | None = option(None, "alias, hub id or local Hugging Face folder to start from")
    from_scratch: bool = option(False, "random weights: --model names the architecture alone")
    preset: str | None = option(None, "a named set of settings of this task")
    image_size: int | None = option(
        None, "side of the training images in pixels (default: the model's own)", at_least=8
    )
    val_split: float = option(
        0.0,
        "share of the training images set aside when there is no val/ folder",
        at_least=0,
        at_most=0.9,
    )
    freeze: Literal["backbone"] | None = option(None, "train the head alone")
    layer_decay: float = option(
        1.0, "lr factor from each layer to the one below", at_least=0.01, at_most=1
    )


@dataclass(frozen=True)
class TrainConfig:
    """What the engine needs to train any task."""

    output: str | None = option(
        None, "the run's folder (default: runs/<task>-<data>-<model>)", fixed=False
    )
    run_name: str | None = option(None, "short for --output runs/NAME", fixed=False)
    steps: int | None = option(None, "optimizer steps in the whole run", at_least=1)
    epochs: float | None = option(
        None,
        "the same as passes over the training images; give one of the two",
        at_least=0,
        fixed=False,
    )
    budget: Duration | None = option(
        None,
        "time of the whole run, as in 2h or 1h30m, not with --steps or --epochs: what fits is measured once",
        at_least=1,
        fixed=False,
    )
    batch_size: int = option(32, "samples of one optimizer step over all processes", at_least=1)
    micro_batch: Amount | None = option(
        None,
        "most samples one process holds at once; auto: what memory allows (default: the model's)",
        at_least=1,
        fixed=False,
    )
    eval_batch_size: int = option(
        32, "images evaluated at once; part of what a score means", at_least=1
    )
    lr: float = option(1e-3, "peak learning rate", at_least=0)
    weight_decay: float = option(
        0.05, "on weight matrices; norms, biases and embeddings have none", at_least=0
    )
    optimizer: Literal["adamw", "adam", "sgd"] = option("adamw", "fused on every device")
    momentum: float = option(0.9, "of sgd", at_least=0, at_most=1)
    beta1: float = option(0.9, "of adam and adamw", at_least=0, at_most=1)
    beta2: float = option(0.999, "of adam and adamw", at_least=0, at_most=1)
    schedule: Literal["cosine", "poly", "constant", "step"] = option(
        "cosine", "of the learning rate after warm-up"
    )
    schedule_power: float = option(0.9, "exponent of poly", at_least=0)
    schedule_milestones: str = option(
        "0.5,0.8,0.9", "where step halves the rate, as shares of the run"
    )
    lr_min: float = option(1e-6, "where cosine ends", at_least=0)
    warmup_steps: int | None = option(None, "linear warm-up (default: 5 % of the run)", at_least=0)
    clip_grad: float = option(1.0, "largest gradient norm; inf: measure, never clip", at_least=0)
    precision: Literal["fp32", "bf16", "fp16"] = option("bf16", "autocast dtype; weights stay fp32")
    tf32: bool = option(True, "on CUDA: fp32 matrix products in TF32")
    grad_checkpointing: bool = option(
        False, "recompute activations in the backward pass: less memory, more time", fixed=False
    )
    compile: bool = option(False, "torch.compile the model", fixed=False)
    sync_bn: bool = option(False, "BatchNorm statistics over all processes")
    ema: bool = option(True, "average the weights; the average is what best/ holds")
    ema_decay: float = option(
        0.9998,
        "lowered for short runs so that the average spans at most a tenth of them",
        at_least=0,
        at_most=1,
    )
    patience: int = option(
        0, "stop after this many evaluations without a better score; 0: never", at_least=0
    )
    best_metric: str | None = option(None, "which score picks best/ (default: the task's first)")
    max_nonfinite_steps: int = option(
        50, "non-finite steps in a row before the run stops", at_least=1, fixed=False
    )
    skip_unreadable: bool = option(
        False, "put the next readable sample in the place of one that cannot be read"
    )
    seed: int = option(0, "of everything", at_least=0)
    deterministic: bool = option(False, "deterministic algorithms on CUDA", fixed=False)
    workers: int | None = option(
        None, "workers per training process (default: by cores)", at_least=0, fixed=False
    )
    threads: int | None = option(
        None,
        "threads per process (default: by cores); part of what equal bytes means",
        at_least=1,
        fixed=False,
    )
    device: Literal["cuda", "mps", "cpu"] | None = option(
        None, "default: the best there is", fixed=False
    )
    log_every: int = option(50, "steps", at_least=1, fixed=False)
    eval_every: int | None = option(
        None,
        "steps (default: once an epoch, at most 20 times; 0: at the end only)",
        at_least=0,
        fixed=False,
    )
    save_every: Interval | None = option(
        None,
        "steps, or seconds as in 600s (default: a tenth of the run, at most 1000 steps; 0: at the end only)",
        at_least=0,
        fixed=False,
    )
    save_async: bool = option(
        True, "write checkpoints in a thread; the loop waits for a copy in memory only", fixed=False
    )
    keep: int = option(2, "newest checkpoints kept, besides the best", at_least=1, fixed=False)
    resume: str | None = option(
        None, "checkpoint folder to start from when --output has none of its own", fixed=False
    )
    overfit: int = option(
        0, "train and evaluate on the same N samples, to see that it learns", at_least=0
    )
    process_timeout: float = option(
        1800,
        "seconds that another process may not answer before it counts as lost",
        at_least=1,
        fixed=False,
    )
    profile: str | None = option(
        None, "START:COUNT: write a profiler trace of these steps", fixed=False
    )
