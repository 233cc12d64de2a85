"""A training loop made of timm's parts: its loader that prefetches, Mixup, optimizer and scheduler; the model is the library's."""

from functools import partial
from pathlib import Path

import torch
from timm.data import Mixup, create_dataset, create_loader
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import dispatch_clip_grad

from visionloop.bin.benchmarks.comparisons.peer_clock import PeerClock
from visionloop.bin.benchmarks.comparisons.recipes import CROP_AREA, RECIPES
from visionloop.bin.benchmarks.comparisons.trainer_classification import new_classifier, save


def train(case, data, output):
    """({figure: value}, function(folder) that saves the model) of a Case."""
    device, recipe, clock = torch.device(case.device), RECIPES[case.task], PeerClock(case)
    train_set = create_dataset("", root=str(Path(data) / "train"), is_training=True)
    classes = sorted(train_set.reader.class_to_idx, key=train_set.reader.class_to_idx.get)
    model, processor = new_classifier(classes, case.size)
    batches = endless(build_loader(case, train_set, processor, device))
    model.to(device)
    network = torch.compile(model) if case.compile else model
    optimizer = create_optimizer_v2(
        model,
        opt="adamw",
        lr=recipe.lr,
        weight_decay=recipe.weight_decay,
        betas=(0.9, recipe.beta2),
        fused=True,
    )
    # an epoch of one step
    scheduler, _ = create_scheduler_v2(
        optimizer, sched=recipe.schedule, num_epochs=case.steps, warmup_epochs=recipe.warmup_steps(case.steps), warmup_lr=0.0,
        min_lr=0.0, warmup_prefix=True, step_on_epochs=False, updates_per_epoch=1,
    )  # fmt: skip
    mixup = (
        Mixup(mixup_alpha=case.mixup, label_smoothing=0.0, num_classes=len(classes))
        if case.mixup
        else None
    )
    loss_of = SoftTargetCrossEntropy() if mixup else torch.nn.CrossEntropyLoss()
    for step in range(case.steps):
        scheduler.step_update(step)
        pixels, targets = next(batches)
        if mixup:
            pixels, targets = mixup(pixels, targets)
        with torch.autocast(device.type, torch.bfloat16, enabled=case.precision == "bf16"):
            loss = loss_of(network(pixel_values=pixels).logits, targets)
        loss.backward()
        dispatch_clip_grad(model.parameters(), recipe.clip)
        optimizer.step()
        optimizer.zero_grad()
        clock.step(step + 1)
    return clock.figures(), partial(save, model, processor)


def build_loader(case, train_set, processor, device):
    """timm's, with the augmentation of the other sides."""
    return create_loader(
        train_set, (3, case.size, case.size), case.batch_size, is_training=True, device=device, num_workers=case.workers,
        scale=(CROP_AREA["classification"], 1.0), hflip=0.5 if case.hflip else 0.0, color_jitter=0.0, interpolation="bilinear",
        mean=processor.mean, std=processor.std, pin_memory=device.type == "cuda", persistent_workers=case.workers > 0,
    )  # fmt: skip


def endless(loader):
    """Its batches, epoch after epoch."""
    while True:
        yield from loader
