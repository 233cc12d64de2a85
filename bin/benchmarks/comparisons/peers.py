"""The process of a run that is compared with ours: builds it, runs it, writes its figures and its weights."""

import importlib
import json
from pathlib import Path

import click

from visionloop.bin.benchmarks.comparisons.cases import Case
from visionloop.bin.commands.cli import run_commands

MODULES = {
    ("trainer", "classification"): "trainer_classification",
    ("trainer", "detection"): "trainer_detection",
    ("trainer", "segmentation"): "trainer_segmentation",
    ("trainer", "super_resolution"): "trainer_super_resolution",
    ("timm", "classification"): "timm_classification",
}


@click.command(
    "peer",
    help="Run what a file names, {case, data, output}: <output>/figures.json, and <output>/model where it is scored.",
)
@click.argument("path")
def peer(path):
    import torch
    from transformers import set_seed

    request = json.loads(Path(path).read_text())
    case, output = Case(**request["case"]), Path(request["output"])
    torch.set_num_threads(case.threads)
    torch.set_float32_matmul_precision("high")  # on CUDA TF32, as ours has it
    set_seed(case.seed)
    module = importlib.import_module(
        f"visionloop.bin.benchmarks.comparisons.{MODULES[case.side, case.task]}"
    )
    figures, save = module.train(case, request["data"], output)
    (output / "figures.json").write_text(json.dumps(figures))
    if case.scored:
        save(output / "model")


if __name__ == "__main__":
    run_commands(peer)
