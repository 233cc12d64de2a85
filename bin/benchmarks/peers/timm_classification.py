"""A loop of timm's parts: its loader, optimizer and scheduler; transformers' model."""

from functools import partial
from itertools import chain, repeat
from pathlib import Path

import torch
from timm.data import create_dataset, create_loader
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import dispatch_clip_grad

from visionloop.bin.benchmarks.peers.recipes import RECIPES, SMALLEST_CROP, Case
from visionloop.bin.benchmarks.peers.trainer_process import Save, StepTimer
from visionloop.bin.benchmarks.peers.trainer_tasks import new_classifier, save_vit
from visionloop.bin.benchmarks.results import Row


def train(case: Case, data: str) -> tuple[Row, Save]:
    """Train transformers' ViT with timm's prefetching loader, with the others' augmentation."""
    device, recipe, timer = torch.device(case.device), RECIPES[case.task], StepTimer(case)
    train_set = create_dataset("", root=str(Path(data) / "train"), is_training=True)
    classes = sorted(train_set.reader.class_to_idx, key=train_set.reader.class_to_idx.get)
    model, processor = new_classifier(classes, case.image_size)
    loader = create_loader(
        train_set, (3, case.image_size, case.image_size), case.batch_size, is_training=True,
        device=device, num_workers=case.workers, scale=(SMALLEST_CROP["classification"], 1.0),
        hflip=0.5 if case.hflip else 0.0, color_jitter=0.0, interpolation="bilinear",
        mean=processor.mean, std=processor.std, pin_memory=device.type == "cuda",
        persistent_workers=case.workers > 0,
    )  # fmt: skip
    batches = chain.from_iterable(repeat(loader))  # epoch after epoch
    model.to(device)
    optimizer = create_optimizer_v2(
        model, opt="adamw", lr=recipe.lr, weight_decay=recipe.weight_decay,
        betas=(0.9, recipe.beta2), fused=True,
    )  # fmt: skip
    # an epoch of one step
    scheduler, _ = create_scheduler_v2(
        optimizer, sched=recipe.schedule, num_epochs=case.steps,
        warmup_epochs=recipe.warmup_steps(case.steps), warmup_lr=0.0, min_lr=0.0,
        warmup_prefix=True, step_on_epochs=False, updates_per_epoch=1,
    )  # fmt: skip
    for step in range(case.steps):
        scheduler.step_update(step)
        pixels, targets = next(batches)
        with torch.autocast(device.type, torch.bfloat16, enabled=case.precision == "bf16"):
            loss = torch.nn.functional.cross_entropy(model(pixel_values=pixels).logits, targets)
        loss.backward()
        dispatch_clip_grad(model.parameters(), recipe.clip)
        optimizer.step()
        optimizer.zero_grad()
        timer.finish_step(step + 1)
    return timer.figures, partial(save_vit, model, processor)
