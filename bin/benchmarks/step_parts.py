"""Where the time of a training step goes, read off the engine's own `train_step` while it runs."""

from contextlib import ExitStack, contextmanager

import torch

from visionloop.engine import step as engine_step


def take_in_parts(step, case):
    """One step of a SameStep with an average: {part: seconds}; "rest" is what no other part claims.

    On CUDA the device is waited for at each part's edges, so the parts together take longer than a
    step that is left alone.
    """
    run, seconds = step.run, {}
    calls = {
        "loss": (step.task, "loss"),
        "backward": (torch.Tensor, "backward"),
        "clipping": (engine_step, "clip_grad_norm_"),
        "optimizer": (run.optimizer, "step"),
        "average": (run.ema, "update"),
    }
    with ExitStack() as stack:
        stack.enter_context(timed_forward(run.model, step.clock, seconds))
        for part, (owner, name) in calls.items():
            stack.enter_context(timed(owner, name, step.clock, seconds, part))
        whole = step.take(case)
    seconds["loss"] -= seconds["forward"]  # the task calls the network itself
    return seconds | {"rest": whole - sum(seconds.values())}


@contextmanager
def timed(owner, name, clock, seconds, part):
    """Within, what calls of owner.name take is added to seconds[part]."""
    call, is_own = getattr(owner, name), name in vars(owner)
    seconds[part] = 0.0

    def timed_call(*args, **kwargs):
        began = clock()
        result = call(*args, **kwargs)
        seconds[part] += clock() - began
        return result

    setattr(owner, name, timed_call)
    try:
        yield
    finally:
        if is_own:
            setattr(owner, name, call)
        else:
            delattr(owner, name)  # the class's own shows again


@contextmanager
def timed_forward(model, clock, seconds):
    """Within, what calls of the model take is added to seconds["forward"]. Hooks, because a compiled model has no forward of its own."""
    seconds["forward"] = 0.0

    def begin(*_):
        seconds["forward"] -= clock()

    def end(*_):
        seconds["forward"] += clock()

    handles = model.register_forward_pre_hook(begin), model.register_forward_hook(end)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
