"""What all runs of the library's Trainer share: its arguments and its clock."""

from transformers import Trainer, TrainerCallback, TrainingArguments

from visionloop.bin.benchmarks.comparisons.cases import LOG_EVERY
from visionloop.bin.benchmarks.comparisons.peer_clock import PeerClock
from visionloop.bin.benchmarks.comparisons.recipes import RECIPES


class StepCallback(TrainerCallback):
    """Tells a PeerClock of each step."""

    def __init__(self, clock):
        self.clock = clock

    def on_step_end(self, args, state, control, **kwargs):
        self.clock.step(state.global_step)


def run_trainer(case, model, train_set, collate, output, kind=Trainer):
    """Train `model`; {figure: value}. train_set: a Dataset; collate: of its samples; kind: a class of Trainer."""
    recipe, clock, on_cpu = RECIPES[case.task], PeerClock(case), case.device == "cpu"
    arguments = TrainingArguments(
        str(output / "trainer"),
        max_steps=case.steps,
        per_device_train_batch_size=case.batch_size,
        learning_rate=recipe.lr,
        weight_decay=recipe.weight_decay,
        adam_beta2=recipe.beta2,
        warmup_steps=recipe.warmup_steps(case.steps),
        lr_scheduler_type=recipe.schedule,
        max_grad_norm=recipe.clip,
        bf16=case.precision == "bf16",
        torch_compile=case.compile,
        use_cpu=on_cpu,
        dataloader_num_workers=case.workers,
        dataloader_persistent_workers=case.workers > 0,
        dataloader_drop_last=True,
        dataloader_pin_memory=not on_cpu,
        save_strategy="no",
        report_to=[],
        logging_steps=LOG_EVERY,
        disable_tqdm=True,
        remove_unused_columns=False,
        seed=case.seed,
    )
    trainer = kind(
        model,
        arguments,
        train_dataset=train_set,
        data_collator=collate,
        callbacks=[StepCallback(clock)],
    )
    trainer.train()
    return clock.figures()
