"""The process of a run of another implementation: train, write figures and weights."""

import json
from collections.abc import Callable, Sequence, Sized
from pathlib import Path

import click
import torch
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed

from visionloop.bin.benchmarks.measurement import MIB, synchronized_time
from visionloop.bin.benchmarks.peers.recipes import LOG_EVERY, RECIPES, SPEED, WARM_STEPS, Case
from visionloop.bin.benchmarks.peers.runner import run_figures
from visionloop.bin.benchmarks.results import Row, Value
from visionloop.bin.commands.cli import run_commands
from visionloop.engine.system.memory import peak_bytes

Save = Callable[[Path], None]


class Samples(Dataset):
    """Samples made by make(i), as many as the index has."""

    def __init__(self, index: Sized, make: Callable[[int], Row]) -> None:
        self.index, self.make = index, make

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, i: int) -> Row:
        return self.make(i)


def collate(samples: Sequence[Row]) -> Row:
    """Stack images and class labels; keep lists of dicts, masks and the classes of masks."""
    columns: Row = {name: [sample[name] for sample in samples] for name in samples[0]}
    for name, values in columns.items():
        if isinstance(values[0], torch.Tensor) and name in ("pixel_values", "labels", "hr"):
            columns[name] = torch.stack(values)
    return columns


class StepTimer(TrainerCallback):
    """Reads the clock after the steps between which throughput is measured, and the peak memory."""

    def __init__(self, case: Case) -> None:
        self.case, self.device = case, torch.device(case.device)
        self.figures: Row = {}

    def finish_step(self, steps: int) -> None:
        """Call after each step. steps: finished so far, this one included."""
        if steps == WARM_STEPS:
            self.began = synchronized_time(self.device)
        if steps == self.case.steps:
            seconds = synchronized_time(self.device) - self.began
            on_gpu = self.device.type == "cuda"
            peak = torch.cuda.max_memory_allocated() if on_gpu else peak_bytes()
            self.figures = run_figures(self.case, seconds, peak / MIB)

    def on_step_end(self, args: Value, state: Value, control: Value, **_: Value) -> None:
        self.finish_step(state.global_step)


def run_trainer(
    case: Case, model: torch.nn.Module, train_set: Dataset, kind: type[Trainer] = Trainer
) -> Row:
    """Train `model` with the recipe of the task and return {figure: value}."""
    recipe, timer, on_cpu = RECIPES[case.task], StepTimer(case), case.device == "cpu"
    arguments = TrainingArguments(
        "trainer", max_steps=case.steps, per_device_train_batch_size=case.batch_size,
        learning_rate=recipe.lr, weight_decay=recipe.weight_decay, adam_beta2=recipe.beta2,
        warmup_steps=recipe.warmup_steps(case.steps), lr_scheduler_type=recipe.schedule,
        max_grad_norm=recipe.clip, bf16=case.precision == "bf16", use_cpu=on_cpu, seed=case.seed,
        dataloader_num_workers=case.workers, dataloader_persistent_workers=case.workers > 0,
        dataloader_drop_last=True, dataloader_pin_memory=not on_cpu, save_strategy="no",
        report_to=[], logging_steps=LOG_EVERY, disable_tqdm=True, remove_unused_columns=False,
    )  # fmt: skip
    options = dict(train_dataset=train_set, data_collator=collate, callbacks=[timer])
    kind(model, arguments, **options).train()
    return timer.figures


@click.command("process", help="Run the request in a JSON file with case, data and output.")
@click.argument("path")
def process(path: str) -> None:
    """Write <output>/figures.json, and <output>/model where the case is scored."""
    from visionloop.bin.benchmarks.peers import trainer_tasks

    request = json.loads(Path(path).read_text())
    case, output = Case(**request["case"]), Path(request["output"])
    torch.set_num_threads(case.threads)
    torch.set_float32_matmul_precision("high")  # TF32 on CUDA, as in visionloop
    set_seed(case.seed)
    if case.implementation == "timm":
        from visionloop.bin.benchmarks.peers.timm_classification import train
    else:
        train = trainer_tasks.TRAIN[case.task]  # type: ignore[assignment]  # names of parameters
    figures, save = train(case, request["data"])
    (output / "figures.json").write_text(json.dumps(figures))
    if case.comparison != SPEED:
        save(output / "model")


if __name__ == "__main__":
    run_commands(process)
