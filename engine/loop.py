"""The training loop, in the order in which things happen. All of engine/ is called from here."""

from visionloop.engine.budget import TimeLeft
from visionloop.engine.checkpoints.resume import reload_best
from visionloop.engine.checkpoints.save import save_checkpoint
from visionloop.engine.distributed import agree
from visionloop.engine.evaluation.evaluate import evaluate
from visionloop.engine.lr_schedule import due, set_lr
from visionloop.engine.nonfinite import CHECK_EVERY, check_nonfinite_steps
from visionloop.engine.out_of_memory import halve_micro_batch
from visionloop.engine.run import Run
from visionloop.engine.seeding import STEP, seed_host
from visionloop.engine.step import train_step
from visionloop.engine.task import Task


def fit(run: Run, task: Task) -> None:
    """Train from `run.state.step` to the end of the run, or to a stop. All ranks.

    Everything is saved on return; `run.ending.failure` is the error to raise then, if any.
    """
    config, state, ending = run.config, run.state, run.ending
    while True:
        # all ranks, each on its own shard; an evaluation that a stop interrupted comes first
        if run.evaluation_due():
            evaluate(run, task)
        # all ranks enter, the main rank copies to the host, and a thread writes
        if run.save_due():
            save_checkpoint(run, task)
        if run.is_ending or state.step == config.steps:
            return

        step = state.step
        if step == run.reload_at:
            reload_best(run, task)
        run.profiler.update(step)
        lrs = set_lr(run.optimizer, step, config)
        # random choices of the task in a step are the same on all ranks
        seed_host(STEP, config.seed, step)
        task.before_step(run.module, step, config.steps)
        run.log.halvings(step, run.data.plan.halvings)
        # CPU batches of the whole step; the loop never blocks in a loader
        with run.clock.measure("data_wait"):
            micro_batches = run.data.fetch(should_stop=run.stop)
        with run.clock.measure("compute"):
            # the one collective of a step besides the gradients
            agreed = agree(
                run.world,
                None if micro_batches is None else task.count_normalizers(micro_batches),
                task.normalizer_names,
                stop=run.stop_requested(),
                save=run.save_requested(),
                time_left=run.time_left(),
            )
            # a step in flight is finished first
            ending.stopping, ending.time_left = agreed.stop, TimeLeft(agreed.time_left)
            run.last_save.is_outdated = agreed.save
            if micro_batches is None or agreed.data_missing:
                ending.failure = run.unreadable_sample()
                continue
            done = train_step(run, task, micro_batches, agreed.normalizers, step)
            if done is None:  # a rank is out of memory: the same step again, in smaller parts
                halve_micro_batch(run)
                continue
            losses, grad_norm = done
            state.step = step = step + 1  # from here on `step` counts the steps done
            logs = due(step, config.log_every, config.steps)
            # The only host syncs of the loop, here and below. The read waits for the device, whose
            # steps are launched ahead: its time is that of the steps.
            if logs or run.evaluation_due() or ending.stopping:
                means, norm = run.read_losses(losses), float(grad_norm)

        run.log.advance(step)
        if logs:
            with run.clock.measure("logging"):
                run.log.training(step, means, norm, lrs, run.clock, config.batch_size)
                if step <= config.log_every and run.world.is_main:
                    run.log.images(step, task.draw(micro_batches[0]))
        if due(step, min(config.log_every, CHECK_EVERY), config.steps) or ending.stopping:
            check_nonfinite_steps(run)
