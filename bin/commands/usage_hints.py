"""Hints for options as other tools spell them: what to give here instead. Imports no torch."""

import re
from collections.abc import Sequence

import click

COMMANDS = ("train", "evaluate", "predict", "check", "replay", "export", "health")
LAUNCH = (
    "no rank: start processes with torchrun --nproc-per-node N --shutdown-timeout 120 SCRIPT, "
    "which tells each its rank"
)
DEVICE = "CUDA_VISIBLE_DEVICES=0 in front of the command chooses a GPU"
BATCH = "--batch-size, the samples of one step over all processes"
# {options of other tools, with - for _: our option, or what to do}
OPTIONS = {
    "batch bs b train-batch-size per-device-train-batch-size samples-per-gpu": BATCH,
    "imgsz img img-size input-size resolution crop-size size": "--image-size",
    "lr0 learning-rate base-lr blr": "--lr",
    "lrf min-lr lr-final": "--lr-min",
    "wd": "--weight-decay",
    "opt optim": "--optimizer",
    "sched scheduler lr-scheduler lr-scheduler-type lr-schedule": "--schedule",
    "weights weight ckpt checkpoint pretrained-model model-name-or-path arch model-name backbone": (
        "--model, an alias, a hub id or a folder with config.json and model.safetensors"
    ),
    "pretrained": "--model with released weights starts from them, --from-scratch does not",
    "data-path data-dir dataset dataset-path train-dir dataroot data-root root": "--data",
    "source": "--input of predict",
    "project output-dir out-dir save-dir work-dir outdir logdir log-dir": "--output",
    "name exp-name experiment": "--run-name",
    "num-workers nw j num-dataloader-workers dataloader-num-workers": "--workers",
    "num-epochs max-epochs epoch num-train-epochs e total-epochs": "--epochs",
    "max-steps iters max-iters num-iters iterations total-steps max-train-steps": "--steps",
    "warmup warmup-epochs warmup-iters num-warmup-steps warmup-ratio": "--warmup-steps",
    "accumulate accum-iter grad-accum gradient-accumulation-steps accumulation-steps": (
        "--micro-batch, the part of a step in memory at once; --batch-size is the whole step"
    ),
    "amp fp16 bf16 half mixed-precision use-amp": "--precision",
    "gradient-checkpointing": "--grad-checkpointing",
    "max-grad-norm clip grad-clip gradient-clip-val": "--clip-grad",
    "early-stopping early-stop": "--patience",
    "model-ema": "--ema",
    "seed-everything random-seed manual-seed": "--seed",
    "save-period save-freq save-steps checkpoint-freq": "--save-every",
    "eval-steps val-every eval-freq val-interval": "--eval-every",
    "logging-steps print-freq log-interval log-freq": "--log-every",
    "val-size validation-split test-size": "--val-split",
    "exist-ok resume-from-checkpoint auto-resume load resume-from": (
        "none: the same command resumes the run in --output; --resume FOLDER begins another one"
    ),
    "gpus gpu ngpus num-gpus devices nproc nproc-per-node gpu-ids gpu-id": (
        f"no number of GPUs: {DEVICE}, torchrun --nproc-per-node N uses N"
    ),
    "local-rank rank world-size dist-url nnodes nodes launcher distributed": LAUNCH,
    "eval evaluate test val validate only-val eval-only": "the command evaluate",
    "predict infer inference": "the command predict",
    "task": "no task: each is a program of its own, such as visionloop-detection",
    "cfg hyp config-file": "--config with a json file of settings",
    "nc num-classes": "nothing: the data has the classes",
}
HINT_OF = {word: hint for words, hint in OPTIONS.items() for word in words.split()}
ASSIGNMENT = re.compile(r"-{0,2}([A-Za-z][\w.-]*)=(.*)", re.DOTALL)


def explain_usage(error: click.UsageError, arguments: Sequence[str]) -> str:
    """Return the message of a wrong command line in one line, with what to give instead."""
    message = " ".join(error.format_message().split())
    if isinstance(error, click.NoSuchOption):
        return _explain_option(error) or message
    if isinstance(error, click.BadParameter) and error.param and error.param.name == "device":
        return f"{message} {DEVICE}."
    given = (word for word in arguments if f"No such command '{word}'" in message)
    if (hint := HINT_OF.get(next(given, ""), "")).startswith("the command"):
        return f"{message} Give {hint}."
    assignments = (ASSIGNMENT.fullmatch(word) for word in arguments if word in message)
    if assignment := next(filter(None, assignments), None):
        name, value = assignment[1].rsplit(".", 1)[-1], assignment[2]
        flag = HINT_OF.get(_plain(name)) or f"--{_plain(name)} {value}"
        if value in COMMANDS:
            flag = f"the command {value}"
        known = ", ".join(COMMANDS)
        return f"{assignment[0]}: settings are given as flags after a command ({known}): {flag}"
    return message


def _explain_option(error: click.NoSuchOption) -> str | None:
    """Return the message for an option of another tool, None for any other one."""
    given, name = error.option_name, _plain(error.option_name.lstrip("-"))
    hint, command = HINT_OF.get(name), error.ctx.command if error.ctx else None
    params = command.params if command else []
    if f"--{name}" in (flag for param in params for flag in (*param.opts, *param.secondary_opts)):
        return f"{given}: no such option, it is written --{name}"
    if isinstance(command, click.Group) and hint != LAUNCH:
        return f"{given}: begin with a command: {', '.join(COMMANDS)}"
    return f"{given}: no such option; give {hint}" if hint else None


def _plain(name: str) -> str:
    """Return an option as click spells it: in lower case, with - for _."""
    return name.lower().replace("_", "-")
