"""The training loop, told in the order it happens. Everything else in this folder is called from here."""

from visionloop.engine.checkpoints.resume import reload_best
from visionloop.engine.checkpoints.save import save_checkpoint
from visionloop.engine.distributed import agree, gather_objects
from visionloop.engine.evaluation.evaluate import evaluate
from visionloop.engine.lr_schedule import due, set_lr
from visionloop.engine.nonfinite import CHECK_EVERY, check_nonfinite_steps
from visionloop.engine.seeding import STEP, seed_host
from visionloop.engine.step import train_step


def fit(run, task):
    """Train from run.start_step to the end, or to a stop. All ranks. Returns the step reached; run.failure says what went wrong."""
    config, step = run.config, run.start_step
    while True:
        if run.evaluation_due(
            step
        ):  # all ranks, each on its own shard; first of all one that a stop interrupted
            evaluate(run, task, step)
        if run.save_due(step):  # all ranks enter, the main rank copies; a thread writes
            save_checkpoint(run, task, step)
        if run.ending or step == config.steps:
            return step

        if step == run.reload_at:
            reload_best(run, task)
        run.profiler.at(step)
        rates = set_lr(run.optimizer, step, config)
        seed_host(STEP, config.seed, step)  # what a task draws per step is one for all ranks
        task.before_step(run.module, step, config.steps)
        with run.clock.measure(
            "data_wait"
        ):  # host batches of the whole step; the loop never blocks in a loader
            micro_batches = run.data.fetch(give_up=run.stop)
        with run.clock.measure("compute"):
            counts = None if micro_batches is None else task.count(micro_batches)
            # the step's one collective
            agreed = agree(
                run.world,
                counts,
                task.count_names,
                stop=run.wants_to_stop(),
                save=run.wants_to_save(),
                left=run.time_left(),
            )
            run.stopping, run.saving, run.left = (
                agreed.stop,
                agreed.save,
                agreed.left,
            )  # a step in flight is finished first
            if agreed.data_missing:
                run.failure = unreadable_sample(run)
                continue
            losses, grad_norm = train_step(run, task, micro_batches, agreed.count, step)
        step += 1

        run.log.advance(step)
        if due(
            step, config.log_every, config.steps
        ):  # the only host syncs of the loop, here and below
            with run.clock.measure("logging"):
                read = run.read_losses(losses)
                run.log.training(step, read, float(grad_norm), rates, run.clock, config.batch_size)
                if step <= config.log_every and run.world.is_main:
                    run.log.images(step, task.draw(micro_batches[0]))
        elif run.evaluation_due(step) or run.stopping:
            run.read_losses(losses)
        if due(step, min(config.log_every, CHECK_EVERY), config.steps) or run.stopping:
            step = check_nonfinite_steps(run, step)


def unreadable_sample(run):
    """The failure to end with when data is missing: a sample that a rank could not read, or None after a stop. All ranks."""
    error = next((found for found in gather_objects(run.world, run.data.error) if found), None)
    return error and error.as_user_error()
